/**
 * An admitted estimate: as its pool keeps it, and as its holder has it.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type { Service } from "../admission/fairQueue.ts"
import type { Reading, Readings, Ticket } from "../admission/law.ts"
import { check, millisOf } from "../input/checks.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../limits/amounts.ts"
import type { Reservation } from "./models.ts"
import { failed } from "./options.ts"
import type { Pool } from "./pool.ts"

export class HeldReservation {
  readonly agent: string
  readonly estimate: Limits.Estimate
  readonly owner: Pool
  readonly ticket: Ticket
  /** What its agent was charged in the queue; `undefined` where it did not stand there. */
  readonly service: Service | undefined
  readonly waitedMillis: number
  readonly binding: Limits.Dimension | undefined
  /** Whether it still holds its permit and its charge, and whether the provider has accepted its call. */
  isOpen = true
  isAccepted = false
  /** Whether its caller has it: one that was interrupted before has sent nothing. */
  isAtHand = false

  constructor(
    owner: Pool,
    agent: string,
    estimate: Limits.Estimate,
    ticket: Ticket,
    service?: Service,
    waitedMillis = 0,
    binding?: Limits.Dimension
  ) {
    this.owner = owner
    this.agent = agent
    this.estimate = estimate
    this.ticket = ticket
    this.service = service
    this.waitedMillis = waitedMillis
    this.binding = binding
  }

  /** Its scope closes. Of one that its caller has nothing is known, so it is kept as estimated; any other used nothing. */
  end(exit: Exit.Exit<unknown, unknown>): void {
    if (this.isAtHand) this.owner.end(this, exit._tag === "Success")
    else this.owner.settle(this, Amounts.nothing, "failure")
  }
}

/** Hands a reservation to its caller, as a plain object: nothing looks for anything behind it. */
export const handOut = (held: HeldReservation): Reservation => {
  held.isAtHand = true
  const { agent, binding, estimate, owner, ticket, waitedMillis } = held
  const usedOf = (usage: Limits.Usage): Amounts.Charge => Amounts.used(ticket.charge, usage, estimate)
  return {
    pool: owner.name,
    agent,
    charge: owner.limited(ticket.charge),
    waited: Duration.millis(waitedMillis),
    binding,
    observe: (said) =>
      Effect.sync(() =>
        owner.observe(readingsOf(said), held, said.usage === undefined ? undefined : usedOf(said.usage))
      ),
    settle: (usage, outcome = "success") => Effect.sync(() => owner.settle(held, usedOf(usage), outcome)),
    fail: (failure) =>
      Effect.sync(() => {
        check("Reservation.fail", failed, failure)
        const { reason, retryAfter, signal, usage = Amounts.nothing } = failure
        return owner.fail(held, {
          reason,
          retryAfter: retryAfter === undefined ? undefined : pauseOf(retryAfter),
          readings: signal === undefined ? undefined : readingsOf(signal),
          used: usedOf(usage)
        })
      }),
    refund: Effect.sync(() => owner.settle(held, Amounts.nothing, "failure"))
  }
}

/** What a provider closes for longer is probed once an hour. */
const longestPause = 3_600_000

/** A pause in milliseconds. */
export const pauseOf = (duration: Duration.Input): number => Math.min(longestPause, millisOf(duration))

/** What a response says of the limits, without figures that no provider has. */
export const readingsOf = ({ dimensions }: Limits.Signal): Readings => {
  const readings: { [D in Limits.Dimension]?: Reading } = {}
  for (const dimension of Amounts.dimensions) {
    const signal = dimensions[dimension]
    if (signal === undefined) continue
    const { limit, remaining, roundedTo } = signal
    readings[dimension] = {
      limit: Amounts.isAmount(limit) && limit >= 1 ? limit / 60_000 : undefined,
      remaining: Amounts.isAmount(remaining) ? remaining : undefined,
      roundedTo: Amounts.isAmount(roundedTo) && roundedTo >= 1 ? roundedTo : 1
    }
  }
  return readings
}
