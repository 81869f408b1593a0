/**
 * Runs many LLM calls in parallel without 429s: each call is queued until the provider has room.
 *
 * @stability stable
 * @since 0.1.0
 */

/** @since 0.1.0 */
export * as Accounting from "./Accounting.ts"
/** @since 0.1.0 */
export * as Agents from "./Agents.ts"
/** @since 0.1.0 */
export * as Budget from "./Budget.ts"
/** @since 0.1.0 */
export * as Estimator from "./Estimator.ts"
/** @since 0.1.0 */
export * as Events from "./Events.ts"
/** @since 0.1.0 */
export * as Forecast from "./Forecast.ts"
/** @since 0.1.0 */
export * as Governor from "./Governor.ts"
/** @since 0.1.0 */
export * as Limits from "./Limits.ts"
/** @since 0.1.0 */
export * as LlmClient from "./LlmClient.ts"
/** @since 0.1.0 */
export * as LlmError from "./LlmError.ts"
/** @since 0.1.0 */
export * as LlmProvider from "./LlmProvider.ts"
/** @since 0.4.0 */
export * as Messages from "./Messages.ts"
/** @since 0.4.0 */
export * as Places from "./Places.ts"
/** @since 0.1.0 */
export * as Presets from "./Presets.ts"
/** @since 0.2.0 */
export * as Prices from "./Prices.ts"
/** @since 0.1.0 */
export * as Retry from "./Retry.ts"
/** @since 0.1.0 */
export * as Signals from "./Signals.ts"
/** @since 0.2.0 */
export * as Spending from "./Spending.ts"
