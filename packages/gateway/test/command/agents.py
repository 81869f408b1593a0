"""Agents that call a chat API at the same time, with the standard library alone: agents.py BASE_URL AGENTS CALLS

Prints how many calls got each status, and how long all of them took. It retries nothing.
"""
import collections
import concurrent.futures
import json
import sys
import time
import urllib.error
import urllib.request

base_url, agents, calls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def call(agent, number):
    body = {"model": "gpt-6", "max_tokens": 50, "messages": [{"role": "user", "content": f"Question {number}"}]}
    headers = {
        "authorization": "Bearer sk-a-secret",
        "content-type": "application/json",
        "x-floodgate-agent": f"agent-{agent}",
    }
    request = urllib.request.Request(f"{base_url}/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request) as response:
            answer = json.load(response)
            return "answered" if answer["choices"][0]["message"]["content"] else "empty"
    except urllib.error.HTTPError as error:
        return str(error.code)


def work(agent):
    return [call(agent, number) for number in range(calls)]


start = time.monotonic()
with concurrent.futures.ThreadPoolExecutor(agents) as pool:
    outcomes = collections.Counter(outcome for each in pool.map(work, range(agents)) for outcome in each)
print(json.dumps({"outcomes": outcomes, "seconds": round(time.monotonic() - start, 1)}))
