/**
 * An admitted estimate, as its holder has it.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type { Service } from "../admission/fairQueue.ts"
import type { Ticket } from "../admission/law.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../limits/amounts.ts"
import type { Reservation } from "./models.ts"
import type { Pool } from "./pool.ts"

export class HeldReservation implements Reservation {
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
  get pool(): string {
    return this.owner.name
  }
  get charge(): Amounts.Charge {
    return this.owner.limited(this.ticket.charge)
  }
  get waited(): Duration.Duration {
    return Duration.millis(this.waitedMillis)
  }
  /** A function of its own, made when asked for: it may be passed on without its reservation. */
  get settle(): Reservation["settle"] {
    return (usage, outcome = "success") =>
      Effect.sync(() => this.owner.settle(this, Amounts.used(this.ticket.charge, usage, this.estimate), outcome))
  }
  get refund(): Effect.Effect<void> {
    return Effect.sync(() => this.owner.settle(this, Amounts.nothing, "failure"))
  }
  /** Its scope closes. Of one that its caller has nothing is known, so it is kept as estimated; any other used nothing. */
  end(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    if (!this.isOpen) return Effect.void
    if (!this.isAtHand) return this.refund
    this.owner.end(this, exit._tag === "Success")
    return Effect.void
  }
}
