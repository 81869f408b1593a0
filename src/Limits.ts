/**
 * What is limited, by how much, and what a call takes of it.
 *
 * A provider limits several **dimensions** at once: requests, input tokens, output tokens, or both kinds of tokens
 * together. A {@link Limit} says how much of one dimension it grants and how it counts, and {@link resolve} turns limits
 * into the {@link Rule}s that the budget's buckets run by. An {@link Estimate} and a {@link Usage} are amounts over the
 * same dimensions.
 *
 * Everything here is a plain value. Nothing reads a clock or does I/O.
 *
 * @since 0.1.0
 */
export { type Charge, Dimension, dimensions, type Estimate, type Usage } from "./limits/amounts.ts"
export { type Limit, type Limits, type Pools, resolve, type Rule, type Window } from "./limits/rules.ts"
export { type Signal } from "./limits/signal.ts"
