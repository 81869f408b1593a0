/**
 * The internals of the library that Floodgate's own packages use, by subject. They are not part of the public API and change without
 * notice, so each package requires the exact version of the library that it was built with. What the pages of a browser use, too,
 * is `floodgate/internal/words` and `floodgate/internal/nearest`.
 *
 * @since 0.4.0
 */

// Advice and forecasts
export * as Advice from "./agents/advice.ts"
export * as AdviceFigures from "./agents/figures.ts"
export * as Advise from "./agents/advise.ts"
export { History } from "./call/history.ts"
export { shortNames } from "./budget/log.ts"
export { isInUse } from "./agents/resolvePool.ts"
export * as Latency from "./budget/forecast/latency.ts"
export * as Stepwise from "./domain/stepwise.ts"

// Calls
export { Deadline } from "./call/retryPolicy.ts"
export { type LineOf, Lines } from "./call/lines.ts"
export { MoneyWait } from "./call/payment.ts"
export { ReviewAt } from "./budget/models.ts"
export * as Silence from "./call/silence.ts"
export * as Trace from "./call/trace.ts"

// Trees
export { checkCaps as checkJobCaps } from "./trees/models.ts"
export { lineOf as treeLine, pursesOf as treePurses } from "./trees/seat.ts"

// Money
export { bound as maxCost } from "./domain/prices.ts"
export * as Ledger from "./domain/spending/ledger.ts"
export { isReached } from "./money/ledger.ts"

// Checks of options
export * as BudgetChecks from "./budget/options.ts"
export { governorChecks } from "./call/models.ts"
export * as Input from "./domain/input/checks.ts"
export { durationInput } from "./domain/input/durations.ts"
export { shown } from "./domain/input/shown.ts"
export { check as checkCap, inUnits } from "./domain/spending/models.ts"
export { placeChecks } from "./places/parse.ts"
export * as RedisAddress from "./adapters/promise/redisAddress.ts"
export { checks as storeChecks } from "./sharing/models.ts"

// Bounds, clocks and callbacks
export * as Bounds from "./domain/bounds.ts"
export { harmless } from "./domain/input/callbacks.ts"
export { monotonic } from "./domain/input/clock.ts"
export * as Lru from "./domain/input/lru.ts"

// Amounts and limits
export * as Amounts from "./domain/amounts.ts"
export * as Estimating from "./domain/estimating.ts"
export * as LimitWords from "./domain/limitWords.ts"
export * as SharedStatus from "./sharing/status.ts"

// Calls
export { RefusedMillis } from "./call/pool.ts"

// HTTP
export { baseUrl } from "./http/baseUrl.ts"
export * as Credentials from "./http/credentials.ts"
export * as Engine from "./http/engine.ts"
export { httpPlaces } from "./http/places.ts"

// Protocols
export * as Json from "./protocol/json.ts"
export * as JsonValues from "./protocol/jsonValues.ts"
export * as Lineage from "./protocol/lineage.ts"
export * as Matching from "./protocol/protocol.ts"
export * as ProviderHeaders from "./protocol/headers.ts"
export * as Refusing from "./protocol/refusal.ts"
