/**
 * Tickets of calls that came while a window or a cap was spent. A caller that asks for one sends its call again at the time told, with the
 * ticket. The gateway keeps no body and no connection. Each ticket is admitted once.
 */
import { randomUUID } from "node:crypto"
import { Lru } from "floodgate/internal"
import type { ParkedTicket } from "./page/status.ts"

type TicketState = Exclude<ParkedTicket["state"], "due">

/** A ticket, without the call. */
export interface ResetTicket {
  readonly id: string
  /** The name of the key whose call it is. */
  readonly key: string
  readonly agent: string
  /** The bytes of the call. */
  readonly bytes: number
  readonly order: number
  /** When its call may be sent again, in milliseconds since the epoch. */
  at: number
  state: TicketState
}

/** Why a call with a ticket is not made: it is too early, or the ticket is not valid. */
type TicketRefusal = { readonly early: number } | { readonly wrong: string }

/** More tickets are not given. */
const maxTickets = 10_000
/** The time between the calls of two tickets, in milliseconds. The pools pace them besides. */
const spacing = 250
/** A ticket lapses so long after the time told, in milliseconds. */
const lapsesAfter = 3_600_000

const unknown =
  "This gateway does not know the ticket: it has lapsed, is another key's, or was given before a restart or by another gateway. If the call was not made yet, send it without the ticket"

/** The tickets of a gateway. */
export class Tickets {
  private readonly now: () => number
  private readonly all = new Map<string, ResetTicket>()
  /** The last time that was told for each reset. */
  private readonly told = new Map<number, number>()
  private orders = 0

  constructor(now: () => number) {
    this.now = now
  }

  /** Gives a ticket for a call that fits after a reset, or tells a new time for one that it has. Undefined if there are too many. */
  give(
    call: Pick<ResetTicket, "agent" | "bytes" | "key">,
    until: number,
    known?: ResetTicket
  ): ResetTicket | undefined {
    if (this.all.size >= maxTickets) this.forget()
    if (known === undefined && this.all.size >= maxTickets) return undefined
    const at = Math.max(until, this.now(), (this.told.get(until) ?? -Infinity) + spacing)
    Lru.put(this.told, until, at, 1_000)
    const { agent, bytes, key } = call
    const ticket = known ?? { id: randomUUID(), key, agent, bytes, order: ++this.orders, at, state: "waiting" }
    ticket.at = at
    ticket.state = "waiting"
    this.all.set(ticket.id, ticket)
    return ticket
  }

  /** Takes a ticket for a call of a key, or says why it may not be made now. */
  take(id: string, key: string): ResetTicket | TicketRefusal {
    const ticket = this.all.get(id)
    if (ticket === undefined || ticket.key !== key || this.hasLapsed(ticket)) return { wrong: unknown }
    if (ticket.state !== "waiting") return { wrong: `The ticket is ${ticket.state}: its call is not made again` }
    const now = this.now()
    if (now < ticket.at) return { early: ticket.at }
    if (this.isBehind(ticket)) return { early: now + 4 * spacing }
    ticket.state = "sent"
    return ticket
  }

  /** Notes how the call of a ticket has ended. */
  ended(ticket: ResetTicket, isAnswered: boolean): void {
    if (ticket.state === "sent") ticket.state = isAnswered ? "answered" : "unknown"
  }

  /** Notes that the call of a ticket was refused before it was made, so that the ticket stays valid. */
  giveBack(ticket: ResetTicket): void {
    if (ticket.state === "unknown") ticket.state = "waiting"
  }

  /** Cancels a ticket, or all of a key, of those that wait. Returns what was cancelled. */
  cancel(which: { readonly id: string } | { readonly key: string }): ReadonlyArray<ResetTicket> {
    this.forget()
    const found =
      "id" in which ? [this.all.get(which.id)] : Array.from(this.all.values()).filter(({ key }) => key === which.key)
    const cancelled = found.filter((ticket) => ticket?.state === "waiting") as ReadonlyArray<ResetTicket>
    for (const ticket of cancelled) ticket.state = "cancelled"
    return cancelled
  }

  /** The tickets that have not been answered, in their order. */
  get list(): ReadonlyArray<ParkedTicket> {
    this.forget()
    const now = this.now()
    return Array.from(this.all.values())
      .filter(({ state }) => state !== "answered")
      .map((ticket) => (ticket.state === "waiting" && ticket.at <= now ? { ...ticket, state: "due" } : ticket))
  }

  /** Whether an earlier call of its agent has a time that has come, and was not sent yet. */
  private isBehind({ agent, key, order }: ResetTicket): boolean {
    for (const other of this.all.values()) {
      if (other.order >= order) return false
      const isOwn = other.agent === agent && other.key === key
      if (isOwn && other.state === "waiting" && !this.hasLapsed(other)) return true
    }
    return false
  }

  private forget(): void {
    for (const [id, ticket] of this.all) if (this.hasLapsed(ticket)) this.all.delete(id)
  }

  private hasLapsed({ at, state }: ResetTicket): boolean {
    return state !== "sent" && at < this.now() - lapsesAfter
  }
}
