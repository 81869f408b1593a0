/**
 * The vocabulary of limits: dimensions, limits, estimates, usages and signals.
 *
 * A provider limits several **dimensions** at once: requests, input tokens, output tokens, or both kinds of tokens together. A
 * {@link Limit} says how much of one dimension it grants and how it counts. {@link Limits} are the limits of one pool,
 * {@link Pools} those of several pools. An {@link Estimate} and a {@link Usage} are amounts over the same dimensions, and a
 * {@link Signal} is what a response says about the limits.
 *
 * Everything here is a plain value. Nothing reads a clock or does I/O.
 *
 * @stability stable
 * @since 0.1.0
 */
export { Dimension, type Estimate, type Usage } from "./domain/amounts.ts"
export type { Limit, Limits, Pools } from "./domain/rules.ts"
export type { Signal } from "./domain/signal.ts"
