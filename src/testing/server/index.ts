/**
 * The simulated provider as an HTTP server. It needs Node and `@effect/platform-node`.
 *
 * Effect marks its HTTP server unstable: this module is made for `effect` `~4.1`.
 *
 * @stability unstable
 * @since 0.1.0
 */

/**
 * A simulated provider that clients of Anthropic, OpenAI and Gemini can talk to.
 *
 * @since 0.1.0
 */
export * as ProviderServer from "./ProviderServer.ts"
