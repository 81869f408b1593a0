import type { Options } from "./models.ts"

/**
 * How long a provider works on a call, unless the user says otherwise: it reads 100,000 tokens and writes 100 in a second.
 * Forecasts, simulations and the tools use the same values.
 */
export const usual = { baseMillis: 500, perInputTokenMillis: 0.01, perOutputTokenMillis: 10 } as const

/** How long a call takes alone on a server with batches: it reads 10,000 tokens a second and writes 50. */
export const ofServer = { baseMillis: 0, perInputTokenMillis: 0.1, perOutputTokenMillis: 20 } as const

/** A latency, with the usual values for what it leaves out. */
export const complete = ({
  baseMillis = usual.baseMillis,
  perInputTokenMillis = usual.perInputTokenMillis,
  perOutputTokenMillis = usual.perOutputTokenMillis
}: NonNullable<Options["latency"]> = {}): { readonly [K in keyof typeof usual]: number } => ({
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
