/** Reads Lists of structured fields (RFC 9651, section 4.2), as strictly as the RFC says. It shares nothing with what writes them. */

/** A Byte Sequence stands apart from a String. */
type BareItem = number | string | boolean | { readonly bytes: Buffer }

export interface Item {
  readonly value: BareItem
  readonly parameters: Readonly<Record<string, BareItem>>
}

/** Reads a field value of ASCII characters. Throws on everything that a parser must refuse. */
export const listOf = (field: string): ReadonlyArray<Item> => {
  let at = 0
  const fail = (why: string): never => {
    throw new Error(`${why} at ${at} of ${field}`)
  }
  const taken = (form: RegExp): string | undefined => {
    const sticky = new RegExp(form.source, "y")
    sticky.lastIndex = at
    const found = sticky.exec(field)?.[0]
    at += found?.length ?? 0
    return found
  }
  const bare = (): BareItem => {
    const number = taken(/-?\d+(?![\d.])/)
    if (number !== undefined) return number.replace("-", "").length <= 15 ? Number(number) : fail("a long Integer")
    const text = taken(/"(?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"/)
    if (text !== undefined) return text.slice(1, -1).replaceAll(/\\(["\\])/g, "$1")
    const bytes = taken(/:[A-Za-z0-9+/]*={0,2}:/)
    if (bytes !== undefined) return { bytes: Buffer.from(bytes.slice(1, -1), "base64") }
    const boolean = taken(/\?[01]/)
    return boolean === undefined ? fail("no bare item") : boolean === "?1"
  }
  const items: Array<Item> = []
  if (!/^[\x20-\x7e]*$/.test(field)) fail("not ASCII")
  for (;;) {
    const value = bare()
    const parameters: Record<string, BareItem> = {}
    while (taken(/; */) !== undefined) {
      const key = taken(/[a-z*][a-z0-9_\-.*]*/) ?? fail("no key")
      parameters[key] = taken(/=/) === undefined ? true : bare()
    }
    items.push({ value, parameters })
    if (at === field.length) return items
    if (taken(/[ \t]*,[ \t]*/) === undefined) fail("no comma")
  }
}
