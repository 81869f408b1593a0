/**
 * How long a provider works on a call where nobody says, in milliseconds: 100,000 tokens are read and 100 are written in a
 * second. Forecasts, simulations and the tools assume the same.
 */
const usual = { baseMillis: 500, perInputTokenMillis: 0.01, perOutputTokenMillis: 10 } as const

/** A latency of which a part may be left to the usual one. */
export interface Latency {
  readonly baseMillis?: number | undefined
  readonly perInputTokenMillis?: number | undefined
  readonly perOutputTokenMillis?: number | undefined
}

/** The same without gaps. */
export const complete = ({
  baseMillis = usual.baseMillis,
  perInputTokenMillis = usual.perInputTokenMillis,
  perOutputTokenMillis = usual.perOutputTokenMillis
}: Latency = {}): { readonly [K in keyof typeof usual]: number } => ({
  baseMillis,
  perInputTokenMillis,
  perOutputTokenMillis
})

/** How long the provider works on a call. */
export const millisOf = (
  latency: ReturnType<typeof complete>,
  { inputTokens, outputTokens }: { readonly inputTokens: number; readonly outputTokens: number }
): number =>
  latency.baseMillis + latency.perInputTokenMillis * inputTokens + latency.perOutputTokenMillis * outputTokens
