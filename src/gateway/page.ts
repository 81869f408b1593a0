/** The live page: three files, and the data they show, as a stream of events or once. It loads nothing from other hosts. */
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import type * as Scope from "effect/Scope"
import type { ServerResponse } from "node:http"
import type * as Budget from "../Budget.ts"
import type { Activity, Journal } from "./activity.ts"
import type { Purses } from "./purses.ts"
import { markup } from "./page/markup.ts"
import { script } from "./page/script.ts"
import { style } from "./page/style.ts"
import type { Upstreams } from "./routes.ts"

export interface Parts {
  readonly activity: Activity
  readonly budget: Budget.TokenBudget["Service"]
  readonly journal: Journal | undefined
  readonly purses: Purses
  readonly upstreams: () => Upstreams
  readonly now: () => number
}

/** The page is updated every second. */
const everyMillis = 1_000
const mostViewers = 20
const mostAgents = 50
const mostCaps = 50

/** Only its own files run in the page; it cannot be framed, and it sends requests to no other host. */
const security = {
  "content-security-policy":
    "default-src 'none'; img-src data:; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cache-control": "no-store"
}

const files: Readonly<Record<string, readonly [contentType: string, body: string]>> = {
  "/": ["text/html; charset=utf-8", markup],
  "/page.css": ["text/css; charset=utf-8", style],
  "/page.js": ["text/javascript; charset=utf-8", script]
}

/** The data of the page. JSON has null for infinite amounts. */
const snapshot = ({ activity, budget, journal, now, purses, upstreams }: Parts) =>
  Effect.map(budget.status, ({ pools }) => ({
    at: now(),
    open: activity.open,
    upstreams: [...upstreams().values()].map(({ base, name, origin }) => ({ name, address: origin + base })),
    // An unused default pool is left out.
    pools: Object.entries(pools).flatMap(([name, pool]) =>
      name === "default" && pool.inFlight + pool.queued === 0 ? [] : [{ name, ...pool }]
    ),
    agents: activity.busiest(mostAgents).map((agent) => ({
      ...agent,
      dollars: purses.spentBy(agent.name),
      unpriced: purses.unpricedBy(agent.name)
    })),
    caps: purses.caps(mostCaps),
    minutes: activity.lastHour,
    events: [...(journal?.events ?? [])].reverse()
  }))

/** Serves the paths below `/floodgate` until the scope closes. */
export const make = (
  parts: Parts
): Effect.Effect<(path: string, response: ServerResponse) => void, never, Scope.Scope> =>
  Effect.gen(function* () {
    const run = yield* FiberSet.runtime(yield* FiberSet.make<void, never>())()
    let viewers = 0

    const watch = (response: ServerResponse): void => {
      if (viewers >= mostViewers) return void response.writeHead(503, security).end()
      viewers++
      response.writeHead(200, { ...security, "content-type": "text/event-stream" })
      const send = Effect.map(snapshot(parts), (data) => {
        // A client that does not read needs no more data.
        if (!response.writableNeedDrain) response.write(`data: ${JSON.stringify(data)}\n\n`)
      })
      const fiber = run(Effect.forever(Effect.andThen(send, Effect.sleep(everyMillis))))
      response.once("close", () => {
        viewers--
        fiber.interruptUnsafe()
      })
    }

    return (path, response) => {
      if (path === "/events") return watch(response)
      if (path === "/status") {
        const send = Effect.map(snapshot(parts), (data) => {
          response.writeHead(200, { ...security, "content-type": "application/json" })
          response.end(JSON.stringify(data))
        })
        return void run(send)
      }
      const file = Object.hasOwn(files, path) ? files[path] : undefined
      if (file === undefined) return void response.writeHead(404, security).end()
      response.writeHead(200, { ...security, "content-type": file[0], "content-length": Buffer.byteLength(file[1]) })
      response.end(file[1])
    }
  })
