/**
 * Types that the provider, the engine and the laws share: dimensions, the amounts of a call, and the headers of a response.
 */
export const dimensions = ["requests", "inputTokens", "outputTokens", "tokens"] as const
export type Dimension = (typeof dimensions)[number]
export type Amounts = { readonly [D in Dimension]?: number | undefined }

/** The headers of a response for one dimension. `roundedTo` is the granularity of `remaining`, 1 if it is exact. */
export interface Reading {
  readonly limit: number
  readonly remaining: number
  readonly roundedTo: number
}
export type Readings = { readonly [D in Dimension]?: Reading }

/** A limit as it is given to a client; without `burst`, only the rate is known. */
export interface Told {
  readonly perMinute: number
  readonly burst?: number | undefined
}
export type ToldLimits = { readonly [D in Dimension]?: Told }

/** The dimensions of a record. */
export const dimensionsOf = (record: { readonly [D in Dimension]?: unknown }): ReadonlyArray<Dimension> =>
  dimensions.filter((dimension) => record[dimension] !== undefined)
