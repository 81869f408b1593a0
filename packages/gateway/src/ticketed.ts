/** Calls whose callers ask for tickets: `x-floodgate-park` asks for one, and `x-floodgate-ticket` has one. */
import type { IncomingHttpHeaders, ServerResponse } from "node:http"
import * as Budget from "floodgate/Budget"
import * as Spending from "floodgate/Spending"
import type { Engine, Refusing } from "floodgate/internal"
import type { Activity, RequestEnd } from "./activity.ts"
import type { Caller } from "./callers.ts"
import type { OpenAnswer } from "./openAnswer.ts"
import * as Refusals from "./refusals.ts"
import type { OpenRequest } from "./requests.ts"
import type { Routed } from "./routes.ts"
import type { ResetTicket, Tickets } from "./tickets.ts"

/** A call whose caller asks for a ticket, or has one. */
export interface AskedTicket {
  readonly give: (until: number) => ResetTicket | undefined
  readonly ended: (outcome: RequestEnd["outcome"]) => void
  readonly giveBack: () => void
}

/** A call that is not made, because it is too early for its ticket or the ticket is not valid. */
interface RefusedTicket {
  readonly refusal: Refusing.Refusal
  /** The ticket with the time told; undefined if it is not valid. */
  readonly told: { readonly id: string; readonly at: number } | undefined
}

/** Reads what a caller asks for; undefined if it asks for nothing. */
export const asked = (
  tickets: Tickets,
  headers: IncomingHttpHeaders,
  caller: Caller,
  bytes: number
): AskedTicket | RefusedTicket | undefined => {
  const { "x-floodgate-park": parks, "x-floodgate-ticket": id } = headers
  if (parks === undefined && id === undefined) return undefined
  const call = { key: caller.caller.name, agent: caller.agent, bytes }
  const taken = id === undefined ? undefined : tickets.take(String(id), call.key)
  if (taken !== undefined && "wrong" in taken) {
    return { refusal: { kind: "invalid", message: taken.wrong }, told: undefined }
  }
  if (taken !== undefined && "early" in taken) {
    const message = `It is too early for this ticket: send the call at ${new Date(taken.early).toISOString()}`
    return { refusal: { kind: "spendLimited", message }, told: { id: String(id), at: taken.early } }
  }
  return {
    give: (until) => tickets.give(call, until, taken),
    ended: (outcome) => {
      if (taken !== undefined) tickets.ended(taken, outcome === "answered")
    },
    giveBack: () => {
      if (taken !== undefined) tickets.giveBack(taken)
    }
  }
}

const withTicket = (
  response: Refusing.RefusalResponse,
  { at, id }: { readonly id: string; readonly at: number }
): Refusing.RefusalResponse => ({
  ...response,
  headers: {
    ...response.headers,
    "x-floodgate-ticket": id,
    "x-floodgate-ticket-at": new Date(at).toISOString(),
    "x-should-retry": "false"
  }
})

/** Adds a ticket to a refusal, if its caller asks for one and the call fits after a reset. */
export const promised = (
  ticket: AskedTicket | undefined,
  why: unknown,
  response: Refusing.RefusalResponse
): Refusing.RefusalResponse => {
  if (ticket === undefined || !(why instanceof Budget.BudgetError)) return response
  const cause = why.reason._tag === "Denied" ? why.reason.cause : undefined
  // An attempt that failed in another way than by a spent window may have been executed.
  if (why.failure === undefined || cause instanceof Spending.WindowShareUsed) ticket.giveBack()
  else return response
  const isSpent = cause instanceof Spending.WindowShareUsed || cause instanceof Spending.SpendCapReached
  const given = isSpent && cause.until !== undefined ? ticket.give(cause.until) : undefined
  return given === undefined ? response : withTicket(response, given)
}

/** The parts of a request with a ticket that its refusal needs. */
interface TicketedRequest {
  readonly answering: OpenAnswer
  readonly parts: { readonly activity: Activity }
  readonly record: OpenRequest | undefined
  readonly response: ServerResponse
  readonly routed: Routed
}

/** Answers a call that is not made. */
export const refuseTicket = (
  { answering, parts, record, response, routed }: TicketedRequest,
  { match: { protocol } }: Engine.HttpCall,
  { refusal, told }: RefusedTicket
): void => {
  record?.ended("refused", refusal.kind)
  parts.activity.ended({ outcome: "refused", upstream: routed.upstream.name })
  const refused = Refusals.refusalFor(refusal, protocol)
  answering.run(Refusals.refuse(response, told === undefined ? refused : withTicket(refused, told)))
}
