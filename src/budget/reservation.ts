/**
 * An admitted estimate, as its holder has it.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type { Held } from "../BudgetStore.ts"
import type { Turn } from "../internal/fairQueue.ts"
import * as Limits from "../Limits.ts"
import type { Reservation } from "./models.ts"
import type * as Pool from "./poolModel.ts"

export class HeldReservation implements Reservation {
  readonly agent: string
  private readonly estimate: Limits.Estimate
  readonly charge: Limits.Charge
  readonly owner: Pool.Pool
  readonly held: Held
  readonly waitedMillis: number
  /** The turn it was granted in; undefined where nobody had to wait. */
  private readonly turn: Turn<Pool.Waiter> | undefined
  private closed = false
  /** What its response said of the limits. */
  signal: Limits.Signal | undefined

  constructor(
    owner: Pool.Pool,
    agent: string,
    estimate: Limits.Estimate,
    held: Held,
    turn?: Turn<Pool.Waiter>,
    waitedMillis = 0
  ) {
    this.owner = owner
    this.held = held
    this.agent = agent
    this.estimate = estimate
    this.charge = held.charge
    this.turn = turn
    this.waitedMillis = waitedMillis
  }
  get pool(): string {
    return this.owner.name
  }
  get binding(): Limits.Dimension | undefined {
    return this.turn?.entry.binding
  }
  get waited(): Duration.Duration {
    return Duration.millis(this.waitedMillis)
  }
  /** A function of its own, made when asked for: it may be passed on without its reservation. */
  get settle(): Reservation["settle"] {
    return (usage, outcome = "success") => this.close(usage, outcome === "success")
  }
  get refund(): Effect.Effect<void> {
    return this.close(Limits.nothing, false)
  }
  /** Nobody said what it used: it is kept as estimated. */
  end(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> | undefined {
    if (this.closed) return undefined
    this.closed = true
    return this.owner.settle(this.held, this.charge, exit._tag === "Success")
  }
  private close(usage: Limits.Usage, succeeded: boolean): Effect.Effect<void> {
    const settle = () => {
      if (this.closed) return Effect.void
      this.closed = true
      const used = Limits.used(this.charge, usage, this.estimate)
      return this.owner.settle(this.held, used, succeeded, this.turn) ?? Effect.void
    }
    return Effect.suspend(() => (this.owner.isInstant() ? settle() : Effect.uninterruptible(Effect.suspend(settle))))
  }
}

export const heldOf = (reservation: Reservation | undefined): Held | undefined =>
  reservation instanceof HeldReservation ? reservation.held : undefined
