/**
 * Turns what a response says of the limits into what the law reads, without the figures that no provider has.
 */
import type * as Law from "../admission/law.ts"
import { mostAmount } from "../input/believed.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../limits/amounts.ts"
import type * as Signal from "../limits/signal.ts"

const within = (value: number | undefined, least: number): number | undefined =>
  value !== undefined && value >= least && value <= mostAmount ? value : undefined

export const readingsOf = ({ dimensions }: Limits.Signal): Law.Readings =>
  Amounts.mapDimensions<Signal.DimensionSignal, Law.Reading>(dimensions, ({ limit, remaining, roundedTo }) => {
    const perMinute = within(limit, 1)
    return {
      limit: perMinute === undefined ? undefined : perMinute / 60_000,
      remaining: within(remaining, 0),
      roundedTo: within(roundedTo, 1) ?? 1
    }
  })
