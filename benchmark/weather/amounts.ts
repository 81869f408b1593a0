/**
 * The words that the provider, the engine and the laws share: what is limited, what a call takes, what a response says.
 */
export const dimensions = ["requests", "inputTokens", "outputTokens", "tokens"] as const
export type Dimension = (typeof dimensions)[number]
export type Amounts = { readonly [D in Dimension]?: number | undefined }

/** What a response says about one dimension. `roundedTo` is the granularity of `remaining`; 1 if it is exact. */
export interface Reading {
  readonly limit: number
  readonly remaining: number
  readonly roundedTo: number
}
export type Readings = { readonly [D in Dimension]?: Reading }

/** A limit as it is told to a client: without a `burst` it is told bare. */
export interface Told {
  readonly perMinute: number
  readonly burst?: number | undefined
}
export type ToldLimits = { readonly [D in Dimension]?: Told }

/** The dimensions that a record mentions. */
export const dimensionsOf = (record: { readonly [D in Dimension]?: unknown }): ReadonlyArray<Dimension> =>
  dimensions.filter((dimension) => record[dimension] !== undefined)
