/** Plugs a middleware into a client of the SDK, if the client's version has middlewares. */
import * as Predicate from "effect/Predicate"
import { check, secret, wrong } from "../../domain/input/checks.ts"

/**
 * A client of Anthropic's SDK, described by its form. Clients before 0.103 have no middlewares and ignore the option.
 *
 * @stability stable
 * @category models
 * @since 0.4.0
 */
export interface AnthropicClient {
  readonly middleware: ReadonlyArray<unknown>
  // A client's own method takes many more options, which no type here can name.
  withOptions(options: { readonly middleware: ReadonlyArray<never> }): unknown
}

// Not shown, because it may be a key.
const aClient = secret("a client, such as new Anthropic()", (value) => typeof value === "object" && value !== null)

const isClient = (value: unknown): value is AnthropicClient =>
  Predicate.hasProperty(value, "middleware") &&
  Array.isArray(value.middleware) &&
  Predicate.hasProperty(value, "withOptions") &&
  typeof value.withOptions === "function"

/** Adds a middleware as the innermost, unless the client has it already: it would govern each call twice. */
export const withMiddleware = <A extends AnthropicClient>(operation: string, client: A, middleware: unknown): A => {
  check(operation, aClient, client)
  if (!isClient(client)) {
    const instead = "pass its constructor `fetch: floodgate.fetch, maxRetries: 0` instead, or update the SDK"
    wrong(operation, `this client has no middleware, as those of @anthropic-ai/sdk before 0.103: ${instead}`)
  }
  if (client.middleware.includes(middleware)) return client
  return client.withOptions({ middleware: [...client.middleware, middleware] as Array<never> }) as A
}
