"""Grid tasks, mazes and trails: small pictures of tiles on which a model of a million parameters learns in minutes."""
