"""nbgpt's server inside an application of your own: python examples/mounted_server.py, then open http://127.0.0.1:8000.

OpenAI's API is at /gpt2/v1, the playground at /gpt2/. Needs pip install "nbgpt[serve]".
"""

import argparse
import contextlib

import uvicorn
from fastapi import FastAPI

import nbgpt
from nbgpt.serve import app

model = nbgpt.load()
gpt2 = app(model, hosts={"localhost", "127.0.0.1"})


@contextlib.asynccontextmanager
async def lifespan(application):
    async with gpt2.router.lifespan_context(gpt2):  # a mounted application's is not run by itself
        yield


mine = FastAPI(lifespan=lifespan)
mine.mount("/gpt2", gpt2)


@mine.get("/")
def greeting() -> dict[str, str]:
    """Your own routes use the same model: all requests share its batches."""
    return {"text": model.generate("Good morning", max_tokens=8).text}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    uvicorn.run(mine, host="127.0.0.1", port=parser.parse_args().port)
