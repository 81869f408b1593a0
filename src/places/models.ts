/** The places of a call, as a governor gets them, and their checks. */
import type * as Duration from "effect/Duration"
import type * as Accounting from "../Accounting.ts"
import * as Concurrency from "../domain/concurrency.ts"
import * as Input from "../domain/input/checks.ts"
import * as PriceTable from "../domain/prices.ts"
import type { Price } from "../Prices.ts"
import * as Rules from "../domain/rules.ts"
import type * as Limits from "../Limits.ts"

/**
 * All places of a call, and how one is chosen.
 *
 * @stability stable
 * @category models
 * @since 0.4.0
 */
export interface CallPlaces {
  /**
   * The places where the call can be made: a provider with a credential, the model's name there, a tier. The calls of a place go to one
   * pool, that of its `account` and `model`.
   */
  readonly places: ReadonlyArray<{
    readonly name: string
    /** The model's name at this place. */
    readonly model: string
    /** The account whose limits apply. Two places of one account have one limit, so they are one place. @default the name */
    readonly account?: string | undefined
    readonly accounting?: Accounting.Accounting | undefined
    readonly provider?: string | undefined
    readonly fast?: boolean | undefined
    readonly flex?: boolean | undefined
    readonly priceFactor?: number | undefined
    /** @default the price of `model` in the governor's table */
    readonly price?: Price | undefined
    /** The provider's limits at this place. @default those of the budget */
    readonly limits?: Limits.Limits | undefined
    /** The limit of calls in flight at this place. @default that of the budget */
    readonly concurrency?: Concurrency.Concurrency | undefined
    /** The reason why this place takes no call that may go elsewhere; undefined if it takes calls. */
    readonly closed?: "drained" | "noCredential" | "fixedBody" | "twin" | undefined
  }>
  /** The rule by which a place is chosen; see `PlacesOptions`. @default "soonest" */
  readonly policy?: "soonest" | "cheapest" | undefined
  /** For `"cheapest"`: how long the call may take. @default the deadline of `Retry.withDeadline`, or no bound */
  readonly within?: Duration.Input | undefined
}

/**
 * The status of a place: why calls go there, or do not.
 *
 * @stability stable
 * @category models
 * @since 0.5.0
 */
export interface PlaceStatus {
  /** The name of its pool, which contains that of the place. */
  readonly pool: string
  /**
   * - `"open"`: calls go there.
   * - `"untried"`: it has not answered yet. Until it has, it counts as the best.
   * - `"full"`: calls wait for its limits, or for the end of a pause.
   * - `"slow"`: its answers take too long, so calls go elsewhere.
   * - `"refused"`: its provider has refused the credential, the model or the bill, so calls go elsewhere.
   * - `"trial"`: it was slow or has refused, and a call finds out whether it still does.
   */
  readonly state: "open" | "untried" | "full" | "slow" | "refused" | "trial"
  /** How long an answer takes now, on average; undefined until one has come. */
  readonly answerMillis: number | undefined
  /** The earliest time when a call tries a place that is slow or has refused, in milliseconds since the epoch; undefined for others. */
  readonly triedAt: number | undefined
}

/** A place where a call can be made. */
export type CallPlace = CallPlaces["places"][number]

/** The limits that a place states of its pool. */
export type StatedLimits = Pick<CallPlace, "limits" | "concurrency">

/** The rule by which a place is chosen. */
export type PlacePolicy = NonNullable<CallPlaces["policy"]>

export const policy: Input.Check = Input.oneOf("soonest", "cheapest")

/** Checks the places of a call. */
export const callPlaces: Input.Check = Input.options<CallPlaces>(
  {
    places: Input.list(
      Input.options<CallPlace>(
        {
          name: Input.text,
          model: Input.text,
          account: Input.text,
          accounting: Input.accounting,
          provider: Input.text,
          fast: Input.flag,
          flex: Input.flag,
          priceFactor: Input.notNegative,
          price: PriceTable.price,
          limits: Rules.check,
          concurrency: Concurrency.check,
          closed: Input.text
        },
        "name",
        "model"
      )
    ),
    policy,
    within: Input.span
  },
  "places"
)
