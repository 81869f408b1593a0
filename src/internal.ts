/**
 * The internals of the library that Floodgate's own packages use. They are not part of the public API and change without
 * notice, so each package requires the exact version of the library that it was built with.
 *
 * @since 0.4.0
 */
export { fewestAsQuick, plain as plainAdvice } from "./agents/advice.ts"
export { advise, foretold } from "./agents/advise.ts"
export { History } from "./call/history.ts"
export { isInUse } from "./agents/resolvePool.ts"
export * as AdviceFigures from "./agents/figures.ts"
export * as Latency from "./budget/forecast/latency.ts"
export { ReviewAt } from "./budget/models.ts"
export { isReached } from "./money/ledger.ts"
export { MoneyWait } from "./call/payment.ts"
export { Deadline } from "./call/retryPolicy.ts"
export * as Trace from "./call/trace.ts"
export { limits as limitsCheck, priority, weight } from "./budget/options.ts"
export { governorChecks } from "./call/models.ts"
export { mapDimensions, promptTokens } from "./domain/amounts.ts"
export { OnlyEffect } from "./domain/syncForm.ts"
export { bounds, boundsTable } from "./domain/bounds.ts"
export { baseUrl } from "./http/baseUrl.ts"
export { harmless } from "./domain/input/callbacks.ts"
export * as Input from "./domain/input/checks.ts"
export { monotonic } from "./domain/input/clock.ts"
export * as Lru from "./domain/input/lru.ts"
export { hint, nearest } from "./domain/input/nearest.ts"
export * as RedisAddress from "./adapters/promise/redisAddress.ts"
export { shown } from "./domain/input/shown.ts"
export { type SilenceTimer, SilentStream, type Source, timerOf } from "./call/silence.ts"
export { dimensionNames, limitsText, rateOf } from "./domain/limitWords.ts"
export { bound as maxCost } from "./domain/prices.ts"
export * as Ledger from "./domain/spending/ledger.ts"
export { check as checkCap } from "./domain/spending/models.ts"
export { drained, type Stepwise, yielding } from "./domain/stepwise.ts"
export * as Words from "./domain/words.ts"
export {
  type CredentialHeader,
  credentialLocation,
  credentialsOf,
  headerWith,
  ofCallers,
  replacedIn
} from "./http/credentials.ts"
export * as Engine from "./http/engine.ts"
export { httpPlaces } from "./http/places.ts"
export { placeChecks } from "./places/parse.ts"
export { type HeaderReader, headerReader } from "./protocol/headers.ts"
export { at, isRecord, nameOf, parseJson } from "./protocol/json.ts"
export { maxValues, mostValues, ValueCounter } from "./protocol/jsonValues.ts"
export { type Match, matches, pathOf, withOneVersion } from "./protocol/protocol.ts"
export { bytesPerToken } from "./protocol/requestSize.ts"
export { fromThrown } from "./protocol/sdkErrors.ts"
export { replacedTrace } from "./protocol/traceparent.ts"
export { type Refusal, type RefusalResponse, statusOf } from "./protocol/refusal.ts"
export { nameOf as ledgerOf } from "./sharing/ledgerText.ts"
export { checks as storeChecks } from "./sharing/models.ts"
export {
  capOf as sharedCapOf,
  type ProcessStatus,
  type SharedCapStatus,
  type SharedPoolStatus,
  statusOf as sharedStatusOf
} from "./sharing/status.ts"
