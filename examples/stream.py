"""Watch the model think: events as they come. Leaving the `with` block early cancels the response on the server."""

import ilvr
from contracts.events import Restarted, StepCompleted, StepDelta
from contracts.maze_pictures import draw_maze
from contracts.mazes import QUESTION, generate

with ilvr.Client() as client, client.reason([draw_maze(generate(5, 3).rows)], QUESTION, stream=True) as events:
    for event in events:
        match event:
            case StepDelta(text=str(text)):
                print(text, end="", flush=True)
            case StepCompleted(step_type="latent", size=size, exit=how, duration_ms=ms):
                print(f"\n[{size} latent steps in {ms:.1f} ms, {how}]")
            case Restarted():  # the runner died and another one took over: what was printed is void
                print("\n[begins again]")
    print(f"\nanswer {events.response.answer}")
