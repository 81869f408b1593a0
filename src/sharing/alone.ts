/**
 * A process that cannot reach the store, and goes on with its part of the limits, which the others leave unused.
 *
 * It decides on a port of its own, over a state that is the whole made smaller. When the store can be reached again, what
 * happened meanwhile becomes one observation, and so does all that happens to its calls from then on.
 */
import * as Law from "../pacing/law.ts"
import * as Amounts from "../domain/amounts.ts"
import * as Fleet from "./fleet.ts"
import { Local } from "./local.ts"
import type { After, Decided, Decision, Done, Home, Step } from "./port.ts"
import type * as State from "./state.ts"

export class Alone implements Home {
  readonly id: string
  private readonly began: Law.Pacer
  private readonly local: Local
  /** The port of all processes, once it has taken over. */
  private whole: Home | undefined = undefined

  constructor(id: string, whole: State.State, part: State.Part, now: () => number, after: After) {
    this.id = id
    const { inFlight = 0, ...owner } = whole.owners[id] ?? {}
    const law = () => Fleet.partOfLaw(whole.law, part, inFlight, now())
    const own = { ...owner, inFlight: 0, held: Amounts.nothing, spent: Amounts.nothing, part: undefined }
    this.began = law()
    const config = { ...whole.config, concurrency: part.calls }
    const owners = { [id]: own as State.Owner }
    const state = { ...whole, law: law(), config, owners, alone: { of: part.of, open: new Set<Law.Ticket>() } }
    this.local = new Local(id, state, now, after)
  }

  get state(): State.State {
    return this.local.state
  }

  transact<A>(observation: Step<A>): A
  transact<A extends Decided>(decision: Decision<A>, done: Done<A>): void
  transact<A extends Decided>(step: Decision<A>, done?: Done<A>): A | void {
    const { local, whole } = this
    // From now on the store knows its calls.
    if (done === undefined) return (whole ?? local).transact(step as Step<A>)
    if (whole === undefined) local.transact(step, (answer, _, isLate) => done(answer, this, isLate))
  }

  /** Whether the time is over for which the others leave the part unused. */
  isOver = false

  /** Admits nobody any more. */
  stop(): void {
    this.isOver = true
    this.local.stop()
  }

  /** Calls of before are over. */
  ended(calls: number): void {
    if (calls > 0) this.local.transact(({ law }) => void (law.inFlight -= calls))
  }

  /** What was used alone, as an observation of all processes; from then on `whole` has its calls. */
  report(whole: Home): Step<void> {
    this.stop()
    this.whole = whole
    const { began, id } = this
    const { alone, law, owners } = this.state
    const tickets = Array.from(alone!.open)
    return (state) => {
      Fleet.comeBack(state, id, { began, law, owner: owners[id]! })
      for (const ticket of tickets) Law.adopt(state.law, ticket)
    }
  }
}
