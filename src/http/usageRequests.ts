/** Requests for the usage of a stream, which is sent only on request by some services, and refused by others. */
import * as Lru from "../domain/input/lru.ts"
import { hostOf } from "./credentials.ts"
import type { BodyChange, HttpCall } from "./models.ts"

/** More services than a program calls. One that is evicted is asked again. */
const maxRefusing = 1_000

/** Remembers which services reject requests for the usage of a stream. It is mutable and belongs to one engine. */
export const makeUsageRequests = () => {
  const refusing = new Map<string, true>()
  return {
    /** The change that requests usage; undefined if the caller's own body is sent. */
    changeOf: ({
      match,
      needsUsageRequest,
      request,
      text,
      usageInsertion: insert
    }: HttpCall): BodyChange | undefined => {
      const { usageRequest } = match.protocol
      if (!needsUsageRequest || usageRequest === undefined || refusing.has(hostOf(request))) return undefined
      if (insert !== undefined) return { insert }
      return text && { text: usageRequest.inject(text()) }
    },
    /** Whether the service rejected the request for usage. If so, it is not asked again. */
    isRefused: ({ request }: HttpCall, status: number, error: string): boolean => {
      const isRefused = (status === 400 || status === 422) && error.includes("stream_options")
      if (isRefused) Lru.put(refusing, hostOf(request), true, maxRefusing)
      return isRefused
    }
  }
}

export type UsageRequests = ReturnType<typeof makeUsageRequests>
