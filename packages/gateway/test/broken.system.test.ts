import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schedule from "effect/Schedule"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import { type Protocol, protocols } from "floodgate/protocol"
import * as Retry from "floodgate/Retry"
import { serve } from "../../../test/support/httpServer.ts"

const { openaiChat } = protocols

// These use real HTTP, so they run on the real clock. They wait only for conditions.

const broken = (): never => {
  throw new Error("a fault of its own")
}

const events = [
  'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n',
  'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
  "data: [DONE]\n\n"
]

const protocolWith = (own: Partial<Protocol>): Gateway.Options => ({
  protocols: [{ ...openaiChat, name: "own", ...own }]
})

/** Fails at the second event, after the first was passed on. */
const brokenLater: Protocol["observe"] = (answer, event) =>
  event.data.includes("finish_reason") ? broken() : openaiChat.observe(answer, event)

const cases: ReadonlyArray<
  readonly [what: string, options: Gateway.Options, body?: object, statuses?: ReadonlyArray<number>]
> = [
  ["an account", { account: broken }],
  ["an accounting", { accounting: broken }],
  ["a protocol that throws while it is matched", protocolWith({ match: broken })],
  ["a protocol that throws while it describes", protocolWith({ describe: broken })],
  ["a protocol that throws while it looks for the agent", protocolWith({ agentOf: broken })],
  ["a protocol that throws while it reads the answer", protocolWith({ answer: broken })],
  ["a protocol that throws while it reads the limits", protocolWith({ limits: broken })],
  ["a protocol that throws at the first event", protocolWith({ observe: broken }), { stream: true }],
  ["a protocol that throws at a later event", protocolWith({ observe: brokenLater }), { stream: true }],
  [
    "a protocol that throws while it asks for usage",
    protocolWith({ usageRequest: { inject: broken, isExtra: broken } }),
    { stream: true }
  ],
  [
    "a protocol that throws while it hides usage",
    protocolWith({ usageRequest: { inject: (body) => body, isExtra: broken } }),
    { stream: true }
  ],
  ["a protocol that throws while it refuses", { ...protocolWith({ refuse: broken }), account: broken }],
  ["a protocol that throws while it refuses a call without an answer", protocolWith({ refuse: broken }), { cut: true }],
  [
    "a protocol that throws while it ends a stream that began early",
    { ...protocolWith({ refuseInStream: broken }), silence: "1 millis", keepAlive: "1 millis" },
    { cut: true, stream: true }
  ]
]

describe("a gateway with callbacks that throw", () => {
  // Regression: an error of `account` was thrown in a Node listener, and ended the process.
  it.live.each(cases)("lives on with %s", ([, options, more = {}]) =>
    Effect.gen(function* () {
      const upstream = yield* serve((_, response, body) => {
        if (body.includes('"cut":true')) return void setTimeout(() => response.destroy(), 50)
        if (!body.includes('"stream":true')) {
          const answer = JSON.stringify({ choices: [], usage: { prompt_tokens: 1, completion_tokens: 1 } })
          return void response.writeHead(200, { "content-type": "application/json" }).end(answer)
        }
        response.writeHead(200, { "content-type": "text/event-stream" })
        const next = (at: number): void =>
          at === events.length ? void response.end() : void response.write(events[at], () => setImmediate(next, at + 1))
        next(0)
      })
      const context = yield* Layer.build(
        Governor.layer({ retry: Retry.make({ attempts: 1 }) as never }).pipe(
          Layer.provideMerge(Budget.layer({ concurrency: 1 })),
          Layer.provideMerge(Logger.layer([]))
        )
      )
      const { url } = yield* Gateway.make({ upstreams: { openai: upstream.url }, drain: "20 millis", ...options }).pipe(
        Effect.provideContext(context)
      )
      const ask = Effect.tryPromise({
        try: async (signal) => {
          const response = await fetch(`${url}/v1/chat/completions`, {
            method: "POST",
            signal,
            headers: { authorization: "Bearer k" },
            body: JSON.stringify({ model: "m", messages: [], ...more })
          })
          return { status: response.status, text: await response.text() }
        },
        catch: (thrown) => thrown
      })
      // All of them are answered, or their connections end: no call waits for a slot that another one has kept.
      for (let at = 0; at < 3; at++) {
        const exit = yield* Effect.exit(ask)
        if (exit._tag === "Success" && exit.value.status !== 200) {
          assert.isAtLeast(exit.value.status, 500)
          assert.notInclude(exit.value.text, "a fault of its own")
        }
      }
      const { status } = Context.get(context, Budget.TokenBudget)
      yield* Effect.repeat(status, {
        until: ({ pools }) => Object.values(pools).every(({ inFlight, queued }) => inFlight + queued === 0),
        schedule: Schedule.spaced("2 millis")
      })
      const health = yield* Effect.promise(() => fetch(`${url}/healthz`))
      assert.strictEqual(health.status, 200)
    })
  )

  it.live("answers with an id that leads to the cause in the log, and with no part of the cause", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const logger = Logger.make(({ message }) => void lines.push(String(message)))
      const upstream = yield* serve((_, response) => void response.end())
      const context = yield* Layer.build(
        Governor.layer().pipe(Layer.provideMerge(Budget.layer()), Layer.provideMerge(Logger.layer([logger])))
      )
      const { url } = yield* Gateway.make({
        upstreams: { openai: upstream.url },
        ...protocolWith({ match: broken })
      }).pipe(Effect.provideContext(context))
      const answers = yield* Effect.forEach([1, 2], () =>
        Effect.promise(async () => (await fetch(`${url}/v1/chat/completions`, { method: "POST", body: "{}" })).text())
      )
      const ids = answers.map(
        (text) => /search its log for ([\da-f]{8}), which stands beside the cause/.exec(text)?.[1]
      )
      assert.strictEqual(new Set(ids).size, 2, answers.join())
      for (const [index, id] of ids.entries()) {
        assert.include(lines[index], `(${id}),Error: a fault of its own`)
        assert.notInclude(answers[index], "a fault of its own")
      }
    })
  )
})
