import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as Fetch from "floodgate/fetch"
import * as Governor from "floodgate/Governor"

// Responses of OpenAI that failed. They come with status 200, and their code says whose fault it was.

/** What a request, or its content, is the reason for. The last one stands for all codes that will be added. */
const final = [
  "context_length_exceeded",
  "invalid_prompt",
  "data_residency_mismatch",
  "bio_policy",
  "cyber_policy",
  "misalignment_policy_violation",
  "vector_store_timeout",
  "invalid_image",
  "invalid_image_format",
  "invalid_base64_image",
  "invalid_image_url",
  "image_too_large",
  "image_too_small",
  "image_parse_error",
  "image_content_policy_violation",
  "invalid_image_mode",
  "image_file_too_large",
  "unsupported_image_media_type",
  "empty_image_file",
  "failed_to_download_image",
  "image_file_not_found",
  "a_code_of_next_year"
]
const retried = ["server_error", "rate_limit_exceeded", "server_is_overloaded", "slow_down", "overloaded"]

const url = "https://api.openai.com/v1/responses"
const frame = (type: string, more: object): string => `event: ${type}\ndata: ${JSON.stringify({ type, ...more })}\n\n`

const failedResponse = (code: string) => ({
  id: "resp_1",
  object: "response",
  status: "failed",
  error: { code, message: "No" },
  output: [],
  usage: null
})

const answered = {
  id: "resp_2",
  object: "response",
  status: "completed",
  error: null,
  output: [],
  usage: { input_tokens: 9, output_tokens: 3 }
}

const forms = {
  "a whole answer": (code: string) => Response.json(failedResponse(code)),
  "a stream": (code: string) =>
    new Response(
      frame("response.created", { response: { id: "resp_1", status: "in_progress" } }) +
        frame("response.failed", { response: failedResponse(code) }),
      { headers: { "content-type": "text/event-stream" } }
    ),
  "an error event": (code: string) =>
    new Response(frame("error", { code, message: "No", param: null, sequence_number: 0 }), {
      headers: { "content-type": "text/event-stream" }
    })
}

/** A governed `fetch` whose provider fails every request for the model `bad` with this code. */
const world = Effect.fnUntraced(function* (form: (code: string) => Response, code: string) {
  const sent: Array<string> = []
  const fetch = yield* Fetch.make({
    // Without it, the hash of the credential would take real time.
    account: () => "own",
    fetch: async (_, init) => {
      const { model } = JSON.parse(String(init?.body)) as { readonly model: string }
      sent.push(model)
      return model === "bad" ? form(code) : Response.json(answered)
    }
  })
  const call = (model: string) =>
    Effect.promise(async (signal) => {
      const body = JSON.stringify({ model, input: "Hi", stream: form !== forms["a whole answer"] && model === "bad" })
      const response = await fetch(url, { method: "POST", signal, body, headers: { authorization: "Bearer sk-1" } })
      return { status: response.status, header: response.headers.get("x-should-retry"), text: await response.text() }
    })
  return { sent, call }
})

/** One pool for all models, so that a failure of one may slow another. */
const live = Governor.layer().pipe(Layer.provideMerge(Budget.layer({ limits: { requests: { perMinute: 600 } } })))

/** Lets promises settle, and then a second pass, until the fiber has ended. Returns the seconds that passed. */
const secondsOf = Effect.fnUntraced(function* <A>(fiber: Fiber.Fiber<A>) {
  const startedAt = yield* Clock.currentTimeMillis
  for (let turn = 0; turn < 20_000; turn++) {
    yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
    if (fiber.pollUnsafe() !== undefined) break
    if (turn % 20 === 19) yield* TestClock.adjust("1 seconds")
  }
  return ((yield* Clock.currentTimeMillis) - startedAt) / 1_000
})

describe("a Response that failed", () => {
  for (const [name, form] of Object.entries(forms)) {
    describe(`in ${name}`, () => {
      it.effect.each(final)("is final if its request is at fault, and slows nobody: %s", (code) =>
        Effect.gen(function* () {
          const { call, sent } = yield* world(form, code)
          const fiber = yield* Effect.forkChild(call("bad"))
          const seconds = yield* secondsOf(fiber)
          const { header, status, text } = yield* Fiber.join(fiber)
          assert.deepStrictEqual([sent.length, seconds], [1, 0])
          assert.deepStrictEqual([status, header], [200, "false"])
          assert.include(text, code)
          const neighbour = yield* Effect.forkChild(call("good"))
          assert.strictEqual(yield* secondsOf(neighbour), 0)
          assert.strictEqual((yield* Fiber.join(neighbour)).status, 200)
        }).pipe(Effect.scoped, Effect.provide(live))
      )

      it.effect.each(retried)("is retried if the provider is at fault: %s", (code) =>
        Effect.gen(function* () {
          const { call, sent } = yield* world(form, code)
          const fiber = yield* Effect.forkChild(call("bad"))
          yield* secondsOf(fiber)
          yield* Fiber.interrupt(fiber)
          assert.isAbove(sent.length, 1)
        }).pipe(Effect.scoped, Effect.provide(live))
      )
    })
  }
})
