"""The greeting: what a person at the terminal is shown once the service is ready.

For: requests to copy, which its engine can answer as they are. Leaves when to show it to `app`.
"""

from converter.settings import Settings

GREETING = """
converter is ready at {url}. Try{browser}in another terminal:

{examples}
  # how it is
  curl -s {status}/status

{key}Your own workflow (in ComfyUI: Workflow > Export (API)) goes to {url}/v1/run as {{"workflow": ...}}.
Ctrl-C stops {stopped}.
"""

KEY = """\
All but the last need an API key: -H 'Authorization: Bearer SECRET'.
"""

OF_THE_EMBEDDED_ENGINE = """\
  # a picture as a file
  curl -sS {url}/v1/workflows/txt2img -H 'Content-Type: application/json' -H 'Accept: image/png' \\
    -d '{{"inputs": {{"prompt": "a red circle on a white background"}}}}' --fail-with-body -o picture.png

  # the same as JSON, the picture inside as base64
  curl -s {url}/v1/workflows/txt2img -H 'Content-Type: application/json' \\
    -d '{{"inputs": {{"prompt": "a blue star", "seed": 7}}}}'

  # with progress, as server-sent events
  curl -sN {url}/v1/workflows/txt2img -H 'Content-Type: application/json' -H 'Accept: text/event-stream' \\
    -d '{{"inputs": {{"prompt": "a green heart", "steps": 30}}}}'
"""

OF_ANY_ENGINE = """\
  # a red picture as a file; it needs no model
  curl -sS {url}/v1/run -H 'Content-Type: application/json' -H 'Accept: image/png' \\
    --fail-with-body -o red.png -d '{{"workflow": {{
    "1": {{"class_type": "EmptyImage", "inputs": {{"width": 64, "height": 64, "batch_size": 1, "color": 16711680}}}},
    "2": {{"class_type": "SaveImage", "inputs": {{"images": ["1", 0], "filename_prefix": "red"}}}}}}}}'
"""
"""What shows a service whose models and templates are not known."""


def compose_greeting(settings: Settings, address: str, probes: str) -> str:
    """What to try on a replica that listens at these addresses: requests that its engine can answer as they are."""
    url = settings.public_url or address
    status = url if probes == address else probes
    guarded = settings.api_keys is not None or settings.api_keys_file is not None
    examples = OF_THE_EMBEDDED_ENGINE if settings.embedded and settings.shipped_workflows else OF_ANY_ENGINE
    stopped = "everything" if settings.engine_url is None else "the converter; the engine goes on"
    return GREETING.format(
        url=url,
        browser=" it in a browser, or " if settings.page else ", ",
        examples=examples.format(url=url),
        status=status,
        key=KEY if guarded else "",
        stopped=stopped,
    )
