"""How many streams one gateway process carries on one core."""
