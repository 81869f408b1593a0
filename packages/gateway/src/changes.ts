/**
 * Changes by an operator, over HTTP: raising a cap for now, resetting what was spent of it, stopping a job, adding a key. Their endpoints
 * require the admin token, because the agents behind the gateway can send such requests, too, and must not raise their own caps.
 */
import type { IncomingMessage, ServerResponse } from "node:http"
import * as Effect from "effect/Effect"
import { Json } from "floodgate/internal"
import type * as Schemas from "./endpointSchemas.ts"
import type { KeyAdditions } from "./keyAdditions.ts"
import * as NewKeys from "./settings/newKeys.ts"
import type { CallerPurses, CapChange } from "./purses.ts"
import * as Response from "./response.ts"
import type { Tickets } from "./tickets.ts"
import type { JobChange, JobTrees } from "./trees.ts"

const maxCharacters = 10_000
const maxDollars = 1e6

/** The body of a request; undefined if it is too long. If the client leaves earlier, the fiber that waits for it is interrupted. */
const bodyOf = (request: IncomingMessage): Effect.Effect<string | undefined> =>
  Effect.callback((resume) => {
    let text = ""
    const add = (part: string): void => {
      text += part
      if (text.length <= maxCharacters) return
      request.off("data", add)
      resume(Effect.undefined)
    }
    request.setEncoding("utf8").on("data", add)
    request.on("end", () => resume(Effect.succeed(text)))
  })

/** A kind of change. */
interface Kind<Change, Changed extends object> {
  /** A body, for whoever has sent something else. */
  readonly example: string
  /** Returns a text that says what is wrong with an invalid body. */
  readonly read: (body: Record<string, unknown>) => Change | string
  /** Makes a change, and returns what was changed; undefined if there is no such thing. Fails with the reason why it is impossible. */
  readonly make: (change: Change) => Effect.Effect<Changed | undefined, string>
  readonly missing: string
  /** The line that is logged. */
  readonly logged: (changed: Changed, change: Change) => Readonly<Record<string, unknown>>
}

const answer = <Change extends object, Changed extends object>(
  { example, logged, make, missing, read }: Kind<Change, Changed>,
  request: IncomingMessage,
  response: ServerResponse
): Effect.Effect<void> =>
  Effect.flatMap(bodyOf(request), (text) => {
    if (text === undefined)
      return Response.failed(response, 413, `The body is too long: send at most ${maxCharacters} characters`)
    const body = Json.parseJson(text)
    const change = Json.isRecord(body) ? read(body) : `expected a JSON object such as ${example}`
    if (typeof change === "string") return Response.failed(response, 400, change)
    return Effect.matchEffect(make(change), {
      onFailure: (why) => Response.failed(response, 400, why),
      onSuccess: (changed) =>
        changed === undefined
          ? Response.failed(response, 404, missing)
          : Effect.andThen(Effect.logWarning(logged(changed, change)), Response.json(response, 200, changed))
    })
  })

// -----------------------------------------------------------------------------
// Caps
// -----------------------------------------------------------------------------

const capChangeOf = ({ cap, dollars, reset }: Record<string, unknown>): CapChange | string => {
  if (typeof cap !== "string") return "cap: expected the name or the id of a cap, as /floodgate/status has them"
  if (dollars !== undefined && !(typeof dollars === "number" && dollars > 0 && dollars <= maxDollars)) {
    return `dollars: expected a number > 0, at most ${maxDollars}`
  }
  if (reset !== undefined && typeof reset !== "boolean") return "reset: expected true or false"
  if (dollars === undefined && reset !== true) return "expected dollars, reset, or both"
  return { cap, dollars, reset }
}

/** Answers a request to change a cap. */
export const ofCap = (purses: CallerPurses, request: IncomingMessage, response: ServerResponse): Effect.Effect<void> =>
  answer<CapChange, typeof Schemas.changedCap.Type>(
    {
      example: '{ "cap": "all callers", "dollars": 20 }',
      read: capChangeOf,
      make: (change) =>
        Effect.sync(() => {
          const changed = purses.change(change)
          return changed && { id: changed.id, name: changed.name, dollars: changed.dollars, spent: changed.spent }
        }),
      missing: "No cap, or more than one, has this name: use an id of /floodgate/status",
      logged: ({ dollars, name, spent }, change) => ({
        event: "cap",
        cap: name,
        dollars,
        spent,
        raised: change.dollars !== undefined,
        reset: change.reset === true
      })
    },
    request,
    response
  )

// -----------------------------------------------------------------------------
// Jobs
// -----------------------------------------------------------------------------

const stops: ReadonlyArray<unknown> = ["none", "agents", "calls"] satisfies ReadonlyArray<JobChange["stop"]>

const jobChangeOf = ({ job, stop }: Record<string, unknown>): JobChange | string => {
  if (typeof job !== "string") return "job: expected the id of a job, as /floodgate/status has it"
  if (!stops.includes(stop))
    return 'stop: expected "agents" to refuse new agents, "calls" to refuse all calls, or "none"'
  return { job, stop: stop as JobChange["stop"] }
}

/** Answers a request to stop a job, or to let it go on. */
export const ofJob = (trees: JobTrees, request: IncomingMessage, response: ServerResponse): Effect.Effect<void> =>
  answer<JobChange, typeof Schemas.changedJob.Type>(
    {
      example: '{ "job": "5f0c2a9d41b7e836", "stop": "agents" }',
      read: jobChangeOf,
      make: (change) =>
        Effect.sync(() => {
          const changed = trees.change(change)
          return changed && { id: changed.id, name: changed.name, stop: changed.stop }
        }),
      missing: "There is no such job with a cap on its agents: use an id of /floodgate/status",
      logged: ({ id, name, stop }) => ({ event: "job", job: name, id, stop })
    },
    request,
    response
  )

// -----------------------------------------------------------------------------
// Tickets
// -----------------------------------------------------------------------------

type TicketChange = Parameters<Tickets["cancel"]>[0]

const ticketChangeOf = ({ cancel, cancelKey }: Record<string, unknown>): TicketChange | string => {
  if (typeof cancel === "string" && cancelKey === undefined) return { id: cancel }
  if (typeof cancelKey === "string" && cancel === undefined) return { key: cancelKey }
  return "expected cancel, the id of a ticket, or cancelKey, the name of a key, as /floodgate/tickets has them"
}

/** Answers a request to cancel a ticket, or all of a key. */
export const ofTicket = (tickets: Tickets, request: IncomingMessage, response: ServerResponse): Effect.Effect<void> =>
  answer<TicketChange, typeof Schemas.cancelledTickets.Type>(
    {
      example: '{ "cancel": "0b7f..." }',
      read: ticketChangeOf,
      make: (which) =>
        Effect.sync(() => {
          const cancelled = tickets.cancel(which)
          return cancelled.length === 0 ? undefined : { tickets: cancelled }
        }),
      missing: "No such ticket waits: use an id or a key of /floodgate/tickets",
      logged: ({ tickets }) => ({ event: "ticket", key: tickets[0]!.key, cancelled: tickets.length })
    },
    request,
    response
  )

// -----------------------------------------------------------------------------
// Keys
// -----------------------------------------------------------------------------

/** Answers a request to add a key, or to remove those that were added with a name. The log has no key. */
export const ofKey = (keys: KeyAdditions, request: IncomingMessage, response: ServerResponse): Effect.Effect<void> =>
  answer<NewKeys.KeyChange, NewKeys.KeyChanged>(
    {
      example: '{ "name": "search", "dollarsPerDay": 20 }',
      read: NewKeys.changeOf,
      make: (change) => keys.change(change),
      missing: "No key with this name was added since the gateway was configured: remove it from the configuration",
      logged: ({ name, removed }, { dollarsPerDay, expires, priority }) => ({
        event: "key",
        key: name,
        removed,
        expires,
        dollarsPerDay,
        priority
      })
    },
    request,
    response
  )
