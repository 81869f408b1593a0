/**
 * The live page: three files, and the data they show, as a stream of events or once. It loads nothing from other hosts. Beside
 * it, agents get advice and forecasts.
 */
import * as Effect from "effect/Effect"
import type { ServerResponse } from "node:http"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as Spending from "floodgate/Spending"
import { Bounds, isInUse } from "floodgate/internal"
import type { Activity, Journal } from "./activity.ts"
import * as Advice from "./advice.ts"
import type * as Schemas from "./endpointSchemas.ts"
import { ratiosOf } from "./estimates.ts"
import type { Generation } from "./generation.ts"
import type { CallerPurses } from "./purses.ts"
import type { Tickets } from "./tickets.ts"
import type { JobTrees } from "./trees.ts"
import { markup } from "./page/markup.ts"
import { script } from "./page/script.ts"
import type { Minute, PressureMinute, Snapshot } from "./page/status.ts"
import { style } from "./page/style.ts"
import * as Response from "./response.ts"

export interface PageParts {
  readonly activity: Activity
  readonly budget: Budget.TokenBudget["Service"]
  readonly governor: Governor.Governor["Service"]
  /** The pools of the configuration. Each key gets its own pools with their limits, so these are shown only if in use. */
  readonly configured: ReadonlySet<string>
  /** Returns what depends on the options. */
  readonly current: () => Pick<Generation, "checked" | "keyring" | "parts">
  readonly journal: Journal | undefined
  readonly purses: CallerPurses
  readonly trees: JobTrees
  readonly tickets: Tickets
  readonly now: () => number
}

/** The page is updated every second. */
const everyMillis = 1_000
const maxViewers = Bounds.bounds.viewers.max
const maxAgents = 50
const maxCaps = 50
const maxPlaces = 50
const maxTickets = 50

/** The page runs only its own files, cannot be framed, and sends requests to no other host. */
const security = {
  "content-security-policy":
    "default-src 'none'; img-src data:; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cache-control": "no-store"
}

const json = { ...security, "content-type": "application/json" }

const files = {
  markup: ["text/html; charset=utf-8", markup],
  style: ["text/css; charset=utf-8", style],
  script: ["text/javascript; charset=utf-8", script]
} as const satisfies Readonly<Record<string, readonly [contentType: string, body: string]>>

const hour = 3_600_000

/** The minutes of the last hour in which something happened. */
const hourOf = (used: ReadonlyArray<Minute>, felt: ReadonlyArray<PressureMinute>, now: number) => {
  const none = { calls: 0, tokens: 0, dollars: 0, rejected: 0, waited: 0 }
  const minutes = new Map<number, typeof none & { readonly at: number }>()
  for (const minute of [...used, ...felt]) {
    if (minute.at > now - hour) minutes.set(minute.at, { ...none, ...minutes.get(minute.at), ...minute })
  }
  return [...minutes.values()].sort((one, other) => one.at - other.at)
}

const firstOf = <A>(list: ReadonlyArray<A>, max: number) => ({ list: list.slice(0, max), total: list.length })

/** The data of the page. JSON has null for infinite amounts. */
const snapshot = ({
  activity,
  budget,
  configured,
  current,
  governor,
  journal,
  now,
  purses,
  tickets,
  trees
}: PageParts): Effect.Effect<Snapshot> =>
  Effect.map(
    Effect.all([budget.status, governor.places, governor.windows, governor.learned]),
    ([{ pools }, places, windows, learned]) => ({
      at: now(),
      open: activity.open,
      remembersRequests: current().parts.requests !== undefined,
      addsKeys: current().keyring !== undefined && current().checked.adminToken !== undefined,
      upstreams: [...current().checked.upstreams.values()].map(({ base, name, origin }) => ({
        name,
        address: origin + base
      })),
      pools: Object.entries(pools).flatMap(([name, pool]) =>
        !configured.has(name) || isInUse(pool) ? [{ name, ...pool }] : []
      ),
      places: places.slice(0, maxPlaces),
      agents: activity.busiest(maxAgents),
      ...activity.jobs.busiest(maxAgents),
      caps: purses.caps(maxCaps),
      trees: trees.shown(maxCaps),
      windows: windows.slice(0, maxCaps),
      tickets: firstOf(tickets.list, maxTickets),
      estimates: ratiosOf(learned).slice(0, maxAgents),
      keys: current().keyring !== undefined ? activity.keysByCost(maxAgents) : [],
      minutes: hourOf(activity.lastHour, journal?.minutes ?? [], now()),
      events: [...(journal?.events ?? [])].reverse()
    })
  )

/** Answers for the page until the scope closes. */
export const make = (parts: PageParts) => {
  let viewers = 0

  const watch = (response: ServerResponse): Effect.Effect<void> => {
    if (viewers >= maxViewers)
      return Response.whole(response, 503, security, `${maxViewers} browsers already show this page; trying again`)
    viewers++
    response.once("close", () => viewers--)
    response.writeHead(200, { ...security, "content-type": "text/event-stream" })
    const send = Effect.flatMap(snapshot(parts), (data) =>
      Response.write(response, `data: ${JSON.stringify(data)}\n\n`)
    )
    return Effect.forever(Effect.andThen(send, Effect.sleep(everyMillis)))
  }

  const question = (what: "advice" | "forecast", query: string, response: ServerResponse): Effect.Effect<void> =>
    parts.purses.ofEverybody
      .reduce((answer, purse) => Spending.from(purse)(answer), Advice.answerTo(what, new URLSearchParams(query)))
      .pipe(
        Effect.provideService(Budget.TokenBudget, parts.budget),
        Effect.provideService(Governor.Governor, parts.governor),
        Effect.flatMap(({ body, status }) => Response.whole(response, status, json, JSON.stringify(body)))
      )

  return {
    watch,
    question,
    file: (name: keyof typeof files, response: ServerResponse): Effect.Effect<void> => {
      const [contentType, body] = files[name]
      return Response.whole(response, 200, { ...security, "content-type": contentType }, body)
    },
    status: (response: ServerResponse): Effect.Effect<void> =>
      Effect.flatMap(snapshot(parts), (data: typeof Schemas.status.Type) =>
        Response.whole(response, 200, json, JSON.stringify(data))
      ),
    nothing: (response: ServerResponse): Effect.Effect<void> => Response.whole(response, 404, security, "")
  }
}
