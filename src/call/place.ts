/** A call as one of its places has it. */
import type * as Accounting from "../Accounting.ts"
import type * as PriceTable from "../domain/prices.ts"
import type { SentCall } from "../domain/placeCalls.ts"
import type { PlaceMemory } from "../places/memory.ts"
import type { CallPlace, CallPlaces } from "../places/models.ts"
import { Placement } from "../places/placement.ts"
import type { PlaceReviews } from "../places/reviews.ts"
import type { Call, CallOptions } from "./models.ts"
import type { PoolRecord } from "./pool.ts"
import type { ReportedUsage } from "./reported.ts"
import type * as Usage from "./usage.ts"

/** The amounts that an attempt reserves, and the pool that it reserves them from. */
export interface Reserving {
  readonly pool: PoolRecord
  readonly accounting: Accounting.Accounting
  /** The call as its place has it. */
  readonly request: Call
  readonly known: Usage.KnownCall
  readonly price: PriceTable.Price | undefined
}

/** The memory of places that the calls of a governor share, and the calls that wait at places. */
export class SharedPlaces {
  readonly memory: PlaceMemory
  readonly reviews: PlaceReviews

  constructor(memory: PlaceMemory, reviews: PlaceReviews) {
    this.memory = memory
    this.reviews = reviews
  }

  /** The places of a call. What a place stores can be continued nowhere else. */
  placementOf(places: CallPlaces, { continues }: Call, { places: only }: CallOptions): Placement {
    return new Placement(places, { only, pinned: continues === undefined ? undefined : this.memory.pinOf(continues) })
  }

  /** Remembers where a conversation is, and how long its answer took. */
  remember(attempt: PlacedAttempt, reported: ReportedUsage | undefined, continuation: string | undefined): void {
    const { call, pool, sentCall } = attempt
    const { memory } = this
    const { prompt = 0, read = 0, written = 0 } = reported ?? {}
    const place = attempt.place!
    const conversation = conversationOf(call)
    if (sentCall !== undefined) {
      memory.answered(pool.name, sentCall, reported?.actual.outputTokens, written + read > 0, call.now)
      attempt.sentCall = undefined
    }
    if (conversation !== undefined) memory.settled(conversation, { place, prompt })
    if (continuation !== undefined) memory.stored(continuation, place)
  }

  /** Notes that an attempt ends, if it has not been answered. */
  forgetSent(attempt: PlacedAttempt): void {
    const { call, pool, sentCall } = attempt
    if (sentCall === undefined) return
    this.memory.unanswered(pool.name, sentCall, call.now)
    attempt.sentCall = undefined
  }
}

/** The call as a place has it. */
export const callAt = (call: Call, place: CallPlace): Call => ({
  ...call,
  places: undefined,
  model: place.model,
  account: place.account ?? place.name,
  accounting: place.accounting ?? call.accounting,
  provider: place.provider ?? call.provider,
  fast: place.fast ?? call.fast,
  flex: place.flex ?? call.flex,
  priceFactor: place.priceFactor ?? call.priceFactor
})

/** An attempt at its place. */
interface PlacedAttempt {
  readonly call: {
    readonly agent: string
    readonly now: number
    readonly options: CallOptions
  }
  readonly pool: PoolRecord
  readonly place: string | undefined
  /** The call as the memory of places has it, until it has ended. */
  sentCall: SentCall | undefined
}

/** The agent of calls that name none. */
const defaultAgent = "default"

/** The name of what a provider may have in its cache for a call; undefined if nothing tells its conversation from others. */
export const conversationOf = ({
  agent,
  options
}: Pick<PlacedAttempt["call"], "agent" | "options">): string | undefined =>
  options.cacheKey ?? (agent === defaultAgent ? undefined : agent)
