/** A call as one of its places has it. */
import type * as Accounting from "../Accounting.ts"
import type * as PriceTable from "../domain/prices.ts"
import type { PlaceMemory } from "../places/memory.ts"
import type { CallPlace, CallPlaces } from "../places/models.ts"
import { Placement } from "../places/placement.ts"
import type { Call, CallOptions } from "./models.ts"
import type { PoolRecord } from "./pool.ts"
import type * as Usage from "./usage.ts"

/** What an attempt reserves, and from which pool. */
export interface Reserving {
  readonly pool: PoolRecord
  readonly accounting: Accounting.Accounting
  /** The call as its place has it. */
  readonly call: Call
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
export const callAt = ({ places: _, ...call }: Call, place: CallPlace): Call => ({
  ...call,
  model: place.model,
  account: place.account ?? place.name,
  accounting: place.accounting ?? call.accounting,
  provider: place.provider ?? call.provider,
  fast: place.fast ?? call.fast,
  flex: place.flex ?? call.flex,
  priceFactor: place.priceFactor ?? call.priceFactor
})
