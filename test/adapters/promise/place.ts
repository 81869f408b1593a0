/** Whether a call has given its place back. */
import type * as Floodgate from "floodgate/promise"

export const call = { model: "my-model", inputTokens: 100, maxTokens: 10 }

/** The calls in flight once the next one goes; the test's own timeout is the limit. */
export const withNext = async (floodgate: Floodgate.Floodgate): Promise<number> => {
  const lease = await floodgate.limiter.acquire(call)
  const { pools } = await floodgate.status()
  lease.succeed()
  await floodgate.dispose()
  return Object.values(pools).reduce((sum, { inFlight }) => sum + inFlight, 0)
}
