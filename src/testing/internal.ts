/**
 * The texts and sizes of what the simulated provider is sent, for our lab and commands. They are not part of the public API and change
 * without notice.
 *
 * @since 0.5.0
 */
export { format } from "./sessions/table.ts"
export { inputTokens } from "./sessions/texts.ts"
export * as Texts from "./textKinds.ts"
