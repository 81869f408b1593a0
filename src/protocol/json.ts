/** Small total decoders of untrusted JSON: none of them throws. */

/** Parses a text as JSON. Returns undefined for anything else. */
export const parseJson = (text: string | undefined): unknown => {
  try {
    return text === undefined ? undefined : JSON.parse(text)
  } catch {
    return undefined
  }
}

/** The largest amount that is believed: no limit and no usage comes near it. */
export const maxAmount = 1e12
