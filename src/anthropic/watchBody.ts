/** Watches the body of a streamed response pass by, event by event, without holding it back. */
import * as Sse from "effect/encoding/Sse"
import type * as Accounting from "../Accounting.ts"
import * as AnthropicErrors from "../internal/anthropicErrors.ts"
import { observedActual } from "../internal/messages.ts"
import * as StreamUsage from "../internal/streamUsage.ts"
import { LlmError } from "../LlmError.ts"

/** How a body ended. */
export type Conclusion =
  | { readonly _tag: "Complete"; readonly actual: Accounting.Actual | undefined }
  | { readonly _tag: "Failed"; readonly error: LlmError }
  | { readonly _tag: "Abandoned" }

export const watchBody = (
  response: Response,
  options: {
    readonly now: number
    readonly observed: (actual: Accounting.Actual) => void
    readonly ended: (conclusion: Conclusion) => void
  }
): Response => {
  const body = response.body
  let observed = StreamUsage.empty
  let error: LlmError | undefined
  let over = false
  const end = (conclusion: Conclusion): void => {
    if (over) return
    over = true
    options.ended(conclusion)
  }
  if (body === null) {
    end({ _tag: "Complete", actual: undefined })
    return response
  }
  const failed = (reason: ConstructorParameters<typeof LlmError>[0]["reason"]) => new LlmError({ reason })
  const parser = Sse.makeParser((sse) => {
    if (sse._tag !== "Event") return
    const step = StreamUsage.read(observed, sse)
    if (step._tag === "Event") {
      observed = step.observed
      const actual = observedActual(observed)
      if (actual !== undefined) options.observed(actual)
    } else if (step._tag === "Error") {
      error = failed(
        AnthropicErrors.fromEvent(step.data, StreamUsage.received(observed), { requestId: undefined }, options)
      )
    }
  })
  const decoder = new TextDecoder()
  const watched = body.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        parser.feed(decoder.decode(chunk, { stream: true }))
        controller.enqueue(chunk)
      },
      flush() {
        const truncated = () => failed(AnthropicErrors.interrupted("truncated", StreamUsage.received(observed)))
        if (error === undefined && observed.complete) end({ _tag: "Complete", actual: observedActual(observed) })
        else end({ _tag: "Failed", error: error ?? truncated() })
      },
      cancel() {
        end(error === undefined ? { _tag: "Abandoned" } : { _tag: "Failed", error })
      }
    })
  )
  return new Response(watched, response)
}
