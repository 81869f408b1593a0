/** Changes of caps by an operator, over HTTP: raising a cap for now, or resetting what was spent of it. */
import type { IncomingMessage, ServerResponse } from "node:http"
import * as Effect from "effect/Effect"
import { Json } from "floodgate/internal"
import type * as Schemas from "./endpointSchemas.ts"
import type { CallerPurses, CapChange } from "./purses.ts"
import * as Response from "./response.ts"

const maxCharacters = 10_000
const maxDollars = 1e6

/** The body of a request; undefined if it is too long. If the client leaves earlier, the fiber that waits for it is interrupted. */
const bodyOf = (request: IncomingMessage): Effect.Effect<string | undefined> =>
  Effect.callback((resume) => {
    let text = ""
    const add = (part: string): void => {
      text += part
      if (text.length <= maxCharacters) return
      request.off("data", add)
      resume(Effect.undefined)
    }
    request.setEncoding("utf8").on("data", add)
    request.on("end", () => resume(Effect.succeed(text)))
  })

/** Reads a change. Returns a text that says what is wrong with an invalid one. */
const changeOf = (text: string): CapChange | string => {
  const body = Json.parseJson(text)
  if (!Json.isRecord(body)) return 'expected a JSON object such as { "cap": "all callers", "dollars": 20 }'
  const { cap, dollars, reset } = body
  if (typeof cap !== "string") return "cap: expected the name or the id of a cap, as /floodgate/status has them"
  if (dollars !== undefined && !(typeof dollars === "number" && dollars > 0 && dollars <= maxDollars)) {
    return `dollars: expected a number > 0, at most ${maxDollars}`
  }
  if (reset !== undefined && typeof reset !== "boolean") return "reset: expected true or false"
  if (dollars === undefined && reset !== true) return "expected dollars, reset, or both"
  return { cap, dollars, reset }
}

/**
 * Answers a request to change a cap. Its endpoint requires the admin token, because the agents behind the gateway can send such
 * requests too, and must not raise their own caps.
 */
export const change = (purses: CallerPurses, request: IncomingMessage, response: ServerResponse): Effect.Effect<void> =>
  Effect.flatMap(bodyOf(request), (text) => {
    if (text === undefined)
      return Response.failed(response, 413, `The body is too long: send at most ${maxCharacters} characters`)
    const change = changeOf(text)
    if (typeof change === "string") return Response.failed(response, 400, change)
    const changed = purses.change(change)
    if (changed === undefined) {
      return Response.failed(response, 404, "No cap, or more than one, has this name: use an id of /floodgate/status")
    }
    const { dollars, id, name, spent } = changed
    const event = {
      event: "cap",
      cap: name,
      dollars,
      spent,
      raised: change.dollars !== undefined,
      reset: change.reset === true
    }
    return Effect.andThen(
      Effect.logWarning(event),
      Response.json(response, 200, { id, name, dollars, spent } satisfies typeof Schemas.changedCap.Type)
    )
  })
