/**
 * The protocols of LLM providers as pure functions: which requests they have, what a request asks for, what an answer used,
 * what a failure means, and how a refusal is written. They are what the option `protocols` of a governed `fetch` takes.
 *
 * The governed `fetch`, the gateway and the simulated provider are built on these. Nothing here does I/O, reads a clock or
 * throws on what comes from outside. A service of your own that speaks one of the protocols under other paths is a copy of
 * it with another `match`; any other is an implementation of {@link Protocol}.
 *
 * **Example** (A service that speaks Chat Completions at a path of its own)
 *
 * ```ts doctest
 * import { type Protocol, protocols } from "floodgate/protocol"
 *
 * const assistant: Protocol = {
 *   ...protocols.openaiChat,
 *   name: "assistant",
 *   match: (method, path) =>
 *     method === "POST" && path === "/assistant/ask" ? { operation: "generate", path } : undefined
 * }
 *
 * assistant.match("POST", "/assistant/ask")?.operation // => "generate"
 * ```
 *
 * **Example** (Reading a stream, event by event)
 *
 * ```ts doctest
 * import { protocols } from "floodgate/protocol"
 *
 * const { openaiChat } = protocols
 * const events = [
 *   '{"id":"c1","choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":"stop"}],"usage":null}',
 *   '{"id":"c1","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1}}',
 *   "[DONE]"
 * ]
 * const answer = events.reduce(
 *   (answer, data) => openaiChat.observe(answer, { name: undefined, data }),
 *   openaiChat.answer(undefined)
 * )
 *
 * answer.complete // => true
 * answer.counts.inputTokens // => 9
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export type { Answer, Description, Protocol } from "./models.ts"
export { protocols } from "./protocols.ts"
