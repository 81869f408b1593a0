/**
 * Reports: one HTML file that opens offline, and charts as SVG.
 *
 * @stability experimental
 * @since 0.1.0
 */

/** @since 0.1.0 */
export * as Charts from "./charts.ts"
/** @since 0.1.0 */
export * as Figures from "./figures.ts"
/** @since 0.1.0 */
export * as Forecast from "./forecast.ts"
/** @since 0.1.0 */
export * as Html from "./html.ts"
/** @since 0.1.0 */
export * as Run from "./run.ts"
/** @since 0.1.0 */
export * as Svg from "./svg.ts"
/** @since 0.2.0 */
export * as Verdict from "./verdict.ts"
