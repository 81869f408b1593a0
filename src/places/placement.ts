/** The places of one call, and what happened to it at each. Mutable, without time of its own. */
import type { Price } from "../Prices.ts"
import type { CallPlace, CallPlaces, PlacePolicy } from "./models.ts"

/** The reason why a place cannot take a call. */
export type ClosedBecause = NonNullable<CallPlace["closed"]> | "notAllowed" | "elsewhere" | "denied" | "tooLarge"

/** The reason why a call went to its place. */
export type PlacedBecause = "first" | "sooner" | "slow" | "cheaper" | "cached" | "pinned" | "only" | "failed" | "probe"

/** A place that takes calls of a model. */
export interface OpenPlace {
  readonly name: string
  /** The name of its pool, without the account. */
  readonly pool: string
  readonly account: string | undefined
  readonly price: Price | undefined
  /** Until when it is set aside, in milliseconds since the epoch; 0 if it is not. */
  readonly asideUntil: number
}

/** The places of a model, as they are now. */
export interface OpenPlaces extends Pick<Placement, "closed" | "policy"> {
  readonly open: ReadonlyArray<OpenPlace>
}

/** Which places a call may go to. */
export interface Restriction {
  /** Their names; undefined for all. */
  readonly only: ReadonlyArray<string> | undefined
  /** The place that stores what the call continues. */
  readonly pinned: string | undefined
}

export class Placement {
  readonly places: ReadonlyArray<CallPlace>
  readonly policy: PlacePolicy
  readonly isPinned: boolean
  private readonly closedBy: Array<ClosedBecause | undefined>
  private readonly notBefore: Array<number>
  /** The places where the call has failed since it last failed at all of them. */
  private readonly round = new Set<number>()
  /** The place of the last attempt; undefined before the first. */
  current: number | undefined = undefined

  constructor({ places, policy = "soonest" }: CallPlaces, { only, pinned }: Restriction) {
    this.places = places
    this.policy = policy
    this.isPinned = pinned !== undefined && places.some(({ name }) => name === pinned)
    this.notBefore = places.map(() => 0)
    this.closedBy = places.map(({ closed, name }) => {
      if (only?.includes(name) === false) return "notAllowed"
      if (this.isPinned && name !== pinned) return "elsewhere"
      // What a place stores can be continued nowhere else.
      return this.isPinned && closed === "drained" ? undefined : closed
    })
  }

  /** The place of a call that has no other, if it can take the call. */
  get only(): CallPlace | undefined {
    return this.places.length === 1 && this.closedBy[0] === undefined ? this.places[0] : undefined
  }

  /** The places that can take the call, in the order of their names in the configuration. */
  get open(): ReadonlyArray<number> {
    return this.places.flatMap((_, index) => (this.closedBy[index] === undefined ? [index] : []))
  }

  /** The places that cannot take it. */
  get closed(): ReadonlyArray<{ readonly place: string; readonly why: ClosedBecause }> {
    return this.places.flatMap(({ name }, index) => {
      const why = this.closedBy[index]
      return why === undefined ? [] : [{ place: name, why }]
    })
  }

  /** The time when the call may be sent to a place again, in milliseconds since the epoch. */
  earliest(index: number): number {
    return this.notBefore[index]!
  }

  /**
   * Notes that the attempt failed. Returns whether that counts as an attempt of the call: it does once the call has failed at every
   * place that can take it.
   */
  failed(): boolean {
    this.round.add(this.current!)
    if (!this.open.every((index) => this.round.has(index))) return false
    this.round.clear()
    return true
  }

  /** Whether the call has failed at a place since it last failed at all of them. */
  hasFailed(index: number): boolean {
    return this.round.has(index)
  }

  /** Keeps the call away from where it failed until `until`. Returns when it may be sent to any place. */
  avoidUntil(until: number): number {
    this.notBefore[this.current!] = until
    return Math.min(...this.open.map((index) => this.notBefore[index]!))
  }

  /** The place cannot take this call at all. Returns whether another one can. A call without another ends with its own failure. */
  close(why: ClosedBecause): boolean {
    if (this.places.length === 1) return false
    this.closedBy[this.current!] = why
    return this.open.length > 0
  }
}
