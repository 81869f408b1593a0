/**
 * The schemas of what a failure carries besides its reason: what had arrived, and what the headers said about the limits.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

export const amount = Schema.optional(Schema.Finite)

const Amounts = Schema.Struct({ requests: amount, inputTokens: amount, outputTokens: amount, tokens: amount })

const DimensionSignal = Schema.Struct({
  limit: amount,
  remaining: amount,
  roundedTo: amount
})

export const Signal = Schema.Struct({
  dimensions: Schema.Struct({
    requests: Schema.optionalKey(DimensionSignal),
    inputTokens: Schema.optionalKey(DimensionSignal),
    outputTokens: Schema.optionalKey(DimensionSignal),
    tokens: Schema.optionalKey(DimensionSignal)
  }),
  windows: Schema.optional(
    Schema.Record(
      Schema.String,
      Schema.Struct({
        used: Schema.Finite,
        resetsAt: Schema.Finite,
        isRejected: Schema.optional(Schema.Boolean),
        models: Schema.optional(Schema.Array(Schema.String))
      })
    )
  )
})

/**
 * The received part of a response that failed half-way: usage in tokens, the partial text, and whether any content was
 * handed on.
 */
export const Received = Schema.Struct({
  /** The usage observed up to the failure. */
  usage: Amounts,
  /** The text received up to the failure; without thinking and tool input. */
  text: Schema.String,
  /** Whether content was handed to the consumer, so that a retry would repeat it. */
  started: Schema.Boolean
})

export type Received = typeof Received.Type
