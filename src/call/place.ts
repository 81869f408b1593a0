/** A call as one of its places has it. */
import type * as Tracer from "effect/Tracer"
import type * as Accounting from "../Accounting.ts"
import { promptTokens } from "../domain/amounts.ts"
import type * as PriceTable from "../domain/prices.ts"
import type { PlaceMemory } from "../places/memory.ts"
import type { CallPlace, CallPlaces } from "../places/models.ts"
import { Placement } from "../places/placement.ts"
import type { Call, CallOptions } from "./models.ts"
import type { PoolRecord } from "./pool.ts"
import * as Trace from "./trace.ts"
import type * as Usage from "./usage.ts"

/** What an attempt reserves, and from which pool. */
export interface Reserving {
  readonly pool: PoolRecord
  readonly accounting: Accounting.Accounting
  /** The call as its place has it. */
  readonly request: Call
  readonly known: Usage.KnownCall
  readonly price: PriceTable.Price | undefined
}

/** The places of a call. What a place stores can be continued nowhere else. */
export const placementOf = (
  places: CallPlaces,
  { continues }: Call,
  { places: only }: CallOptions,
  memory: PlaceMemory
): Placement => new Placement(places, { only, pinned: continues === undefined ? undefined : memory.pinOf(continues) })

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

/** Notes that a call was admitted at its only place. */
export const admittedAtOnlyPlace = (
  placement: Placement,
  { pool, span }: { readonly pool: PoolRecord; readonly span: Tracer.Span | undefined }
): void => {
  placement.current = 0
  pool.counts.placed(1, placement.isPinned ? "pinned" : "only")
  if (span !== undefined) Trace.placed(span, placement.places[0]!.name, pool.name)
}

/** The agent of calls that name none. */
const defaultAgent = "default"

/** A call at the place of its attempt. */
interface PlacedCall {
  readonly agent: string
  readonly options: CallOptions
  readonly parts: { readonly memory: PlaceMemory }
  readonly place: string | undefined
  readonly pool: PoolRecord
}

/** The name of what a provider may have in its cache for a call; undefined if nothing tells its conversation from others. */
export const conversationOf = ({ agent, options }: Pick<PlacedCall, "agent" | "options">): string | undefined =>
  options.cacheKey ?? (agent === defaultAgent ? undefined : agent)

/** Remembers where a conversation is, and how long its answer took. */
export const remember = (
  call: PlacedCall,
  millis: number,
  actual: Accounting.Actual | undefined,
  continuation: string | undefined
): void => {
  const { parts, pool } = call
  const { cacheCreationTokens = 0, cacheReadTokens = 0 } = actual ?? {}
  const place = call.place!
  const conversation = conversationOf(call)
  parts.memory.answered(pool.name, millis, cacheCreationTokens + cacheReadTokens > 0)
  if (conversation !== undefined) {
    parts.memory.settled(conversation, { place, prompt: actual === undefined ? 0 : promptTokens(actual) })
  }
  if (continuation !== undefined) parts.memory.stored(continuation, place)
}
