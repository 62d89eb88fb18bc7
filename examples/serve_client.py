"""Ask a running server with the official client of OpenAI's API.

lime-edge serve smollm2-135m-int4 --name base, then: python examples/serve_client.py [URL]
"""

import sys

from openai import OpenAI

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
client = OpenAI(base_url=f"{url}/v1", api_key="any")
for model in client.models.list():
    print(model.id)
request = "book a table for two at an italian place tonight"
answer = client.chat.completions.create(model="json", messages=[{"role": "user", "content": request}])
print(answer.choices[0].message.content)
with client.chat.completions.create(
    model="base", messages=[{"role": "user", "content": "What is a leek?"}], max_tokens=60, stream=True
) as pieces:
    for piece in pieces:
        print(piece.choices[0].delta.content or "", end="", flush=True)
print()
