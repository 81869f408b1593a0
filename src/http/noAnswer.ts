/** Explains a body with status 200 that is no answer of a provider. */
import { MalformedResponse } from "../LlmError.ts"
import { requestIdOf } from "../protocol/errors.ts"
import type { HeaderReader } from "../protocol/headers.ts"

const decoder = new TextDecoder()
/** Pages of portals, of wrong base URLs, and of proxies that answer everything. The type is not enough: some APIs have the wrong one. */
const page = /^\s*(?:<!--[^]*?-->\s*)?<(?:!doctype\s+html|html|head|body)\b/i
/** A page shows in its beginning what it is. */
const maxStart = 1_000

/** The reason of a body that is no answer, by its beginning. If it is an HTML page, no provider has executed the call. */
export const noAnswer = (
  { header, status }: { readonly header: HeaderReader; readonly status: number },
  start: Uint8Array,
  detail: string
): MalformedResponse => {
  const shared = { status, requestId: requestIdOf(header) }
  return page.test(decoder.decode(start.subarray(0, maxStart)))
    ? new MalformedResponse({ ...shared, executed: false, detail: "an HTML page" })
    : new MalformedResponse({ ...shared, detail })
}
