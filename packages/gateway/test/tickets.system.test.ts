/** Fifty calls with tickets at a gateway, over a reset and a restart of the gateway. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import { message } from "../../../test/support/httpProvider.ts"
import { serve } from "../../../test/support/httpServer.ts"

const calls = 50
/** The gateway restarts when so many calls are answered. */
const before = 20
/** The times of tickets are so far apart, in milliseconds. */
const spacing = 250

/** A provider whose window is spent for some seconds. */
const provider = Effect.gen(function* () {
  const state = {
    resetsAt: 1_000 * (Math.ceil(Date.now() / 1_000) + 3),
    rejected: 0,
    answered: [] as Array<{ readonly name: string; readonly at: number }>
  }
  const { url } = yield* serve((_, response, body) => {
    const now = Date.now()
    const isOpen = now >= state.resetsAt
    response.writeHead(isOpen ? 200 : 429, {
      "content-type": "application/json",
      "anthropic-ratelimit-unified-status": isOpen ? "allowed" : "rejected",
      "anthropic-ratelimit-unified-representative-claim": "five_hour",
      "anthropic-ratelimit-unified-5h-utilization": isOpen ? "0.01" : "1",
      "anthropic-ratelimit-unified-5h-reset": String(state.resetsAt / 1_000 + (isOpen ? 18_000 : 0))
    })
    if (isOpen) state.answered.push({ name: /call-\d+/.exec(body)![0], at: now })
    else state.rejected++
    response.end(
      JSON.stringify(
        isOpen
          ? message(25, 12, "claude-sonnet-5")
          : { type: "error", error: { type: "rate_limit_error", message: "" } }
      )
    )
  })
  return { state, url }
})

/** A gateway that can be restarted: where it is now, if it runs. */
const restartable = (upstream: string) =>
  Effect.gen(function* () {
    const outer = yield* Effect.scope
    const at: { url: string; scope: Scope.Closeable | undefined } = { url: "", scope: undefined }
    const start = Effect.gen(function* () {
      const scope = yield* Scope.fork(outer)
      const gateway = Effect.gen(function* () {
        const live = yield* Layer.build(Layer.provideMerge(Governor.layer(), Budget.layer()))
        return yield* Effect.provide(Gateway.make({ upstreams: { anthropic: upstream }, maxHold: "1 second" }), live)
      })
      const { url } = yield* Scope.provide(gateway, scope)
      Object.assign(at, { url, scope })
    })
    yield* start
    const restart = Effect.gen(function* () {
      // Calls that run are answered first. Later ones find nobody.
      yield* Scope.close(at.scope!, Exit.void)
      yield* start
    })
    return { at, restart }
  })

interface Answer {
  readonly status: number
  readonly ticket: string | null
  readonly at: string | null
}

/** Sends a call. Returns nothing if no gateway listens: then it was not sent. */
const send = async (url: string, name: string, ticket: string | undefined): Promise<Answer | undefined> => {
  try {
    const response = await fetch(`${url}/v1/messages`, {
      method: "POST",
      headers: {
        authorization: "Bearer sk-ant-oat-test",
        "anthropic-version": "2023-06-01",
        "x-floodgate-agent": name,
        ...(ticket === undefined ? { "x-floodgate-park": "1" } : { "x-floodgate-ticket": ticket })
      },
      body: JSON.stringify({ model: "claude-sonnet-5", max_tokens: 100, messages: [{ role: "user", content: name }] })
    })
    await response.text()
    const { headers, status } = response
    return { status, ticket: headers.get("x-floodgate-ticket"), at: headers.get("x-floodgate-ticket-at") }
  } catch (error) {
    if ((error as { readonly cause?: { readonly code?: string } }).cause?.code === "ECONNREFUSED") return undefined
    throw error
  }
}

describe("fifty tickets", () => {
  it.live("are each called once after the reset, although the gateway that gave them restarts", () =>
    Effect.gen(function* () {
      const { state, url: upstream } = yield* provider
      const { at, restart } = yield* restartable(upstream)
      const given = new Map<string, string>()
      let strangers = 0
      /** A caller that comes back when it is told to, and sends its call without the ticket if nobody knows that. */
      const caller = (name: string) =>
        Effect.promise(async () => {
          let ticket: string | undefined
          for (;;) {
            const answer = await send(at.url, name, ticket)
            if (answer?.status === 200) return
            if (answer?.status === 400) {
              strangers++
              ticket = undefined
              continue
            }
            assert.include([undefined, 402], answer?.status)
            ticket = answer?.ticket ?? ticket
            if (ticket !== undefined) given.set(name, ticket)
            const wait = answer?.at == null ? spacing : Date.parse(answer.at) - Date.now()
            await new Promise((resolve) => setTimeout(resolve, Math.max(0, wait)))
          }
        })
      const names = Array.from({ length: calls }, (_, n) => `call-${n}`)
      const all = yield* Effect.forkChild(Effect.forEach(names, caller, { concurrency: "unbounded", discard: true }))
      while (state.answered.length < before) yield* Effect.sleep("20 millis")
      assert.strictEqual(given.size, calls)
      yield* restart
      yield* Fiber.join(all)

      assert.deepStrictEqual(state.answered.map(({ name }) => name).toSorted(), names.toSorted())
      assert.isAbove(strangers, 0)
      assert.isAtMost(strangers, calls - before)
      const times = state.answered.map(({ at }) => at)
      assert.isAtLeast(times[0]!, state.resetsAt)
      assert.isAtMost(times[0]!, state.resetsAt + 10_000)
      // Only the first calls find out that the window is spent, and none of them is sent again before its time.
      assert.isAtMost(state.rejected, 5)
      // One for each spacing, and those whose times came while no gateway listened or this machine was busy.
      const inFive = times.map((from) => times.filter((time) => time >= from && time < from + 5_000).length)
      assert.isAtMost(Math.max(...inFive), 5_000 / spacing + 8)
    }).pipe(Effect.scoped)
  )
})
