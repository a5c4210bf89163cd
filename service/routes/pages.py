"""``/``: says what this is to whoever opens it in a browser."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>ILVR</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem}
pre{background:#8881;padding:.8rem;overflow-x:auto}</style>
<h1>ILVR</h1>
<p>This server answers questions about pictures with a model that reasons in text and in latent visual steps,
and streams each step as it happens.</p>
<pre>curl -N -F image=@maze.png -F 'question=Find a safe path from S to G.' -F stream=true \\
  <span id="origin">http://127.0.0.1:8000</span>/v1/reason</pre>
<p><a href="/docs">API</a> · <a href="/v1/models">models</a> · <a href="/readyz">ready?</a> ·
<a href="/metrics">metrics</a> · <a href="/version">version</a></p>
<script>document.getElementById("origin").textContent = location.origin</script>
</html>
"""


@router.get("/")
async def index() -> HTMLResponse:
    return HTMLResponse(PAGE)
