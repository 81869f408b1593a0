/** Suggests a known name for a misspelt one. */

/** The number of single-character edits between two texts. Swapping two neighbouring characters counts as one edit. */
const distance = (a: string, b: string): number => {
  let before: ReadonlyArray<number> = []
  let row = Array.from({ length: b.length + 1 }, (_, column) => column)
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1]
    for (let j = 0; j < b.length; j++) {
      const edits = Math.min(row[j + 1]! + 1, next[j]! + 1, row[j]! + (a[i] === b[j] ? 0 : 1))
      const isSwap = i > 0 && j > 0 && a[i] === b[j - 1] && a[i - 1] === b[j]
      next.push(isSwap ? Math.min(edits, before[j - 1]! + 1) : edits)
    }
    before = row
    row = next
  }
  return row[b.length]!
}

/** A name with more edits is a different name. */
const maxEdits = 3
/** Longer names get no suggestion: the time grows with the square of the length, and names may come from outside. */
const maxLength = 64

/** A shorter beginning would match too many names. */
const minBeginning = 4

/** The edits from a given to a known name. A beginning, such as `timeout` of `timeoutSeconds`, counts as near. */
const editsOf = (given: string, known: string): number => {
  const isBeginning = given.length >= minBeginning && (known.startsWith(given) || given.startsWith(known))
  const edits = distance(given, known)
  if (isBeginning) return Math.min(maxEdits, edits)
  return edits <= known.length / 2 ? edits : Infinity
}

/** The known name that is nearest to a misspelt one, if any is within `max` edits. Case does not count. */
export const nearest = (name: string, known: Iterable<string>, max = maxEdits): string | undefined => {
  if (name.length > maxLength) return undefined
  const given = name.toLowerCase()
  let best: string | undefined
  let min = max + 1
  for (const each of known) {
    const edits = editsOf(given, each.toLowerCase())
    if (edits < min) {
      best = each
      min = edits
    }
  }
  return best
}

/** A hint for an unknown name: the nearest known name, or else all known names. */
export const hint = (name: string, known: Iterable<string>): string => {
  const names = [...known]
  const near = nearest(name, names)
  return near === undefined ? `known are ${names.join(", ")}` : `did you mean "${near}"?`
}

/** The suggestion at the end of an error that lists the known names; empty if no name is near. */
export const didYouMean = (near: string | undefined): string => (near === undefined ? "" : `: did you mean "${near}"?`)
