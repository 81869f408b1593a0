/** The page of clients as tabs: one for each client, each with the settings that this client needs. Pure. */

interface Section {
  readonly title: string
  readonly text: string
}

/** The anchor of a heading, as the site makes it. */
export const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
    .replaceAll(" ", "-")

const sectionsOf = (text: string): ReadonlyArray<Section> =>
  text.split(/^(?=## )/m).map((part) => ({ title: /^## (.*)$/m.exec(part)?.[1] ?? "", text: part }))

/** A section below a heading of any level, without the heading. */
export const sectionOf = (text: string, heading: string): string => {
  const lines = text.split("\n")
  const start = lines.findIndex((line) => /^#+ /.test(line) && line.replace(/^#+ /, "") === heading)
  if (start < 0) throw new Error(`no section "${heading}"`)
  const level = /^#+/.exec(lines[start]!)![0].length
  let isCode = false
  let end = start + 1
  while (end < lines.length) {
    if (lines[end]!.startsWith("```")) isCode = !isCode
    if (!isCode && new RegExp(`^#{1,${level}} `).test(lines[end]!)) break
    end++
  }
  return lines
    .slice(start + 1, end)
    .join("\n")
    .trim()
}

/**
 * Puts the sections from the first to the last client of a page into tabs, together with further ones. Each keeps its heading, so
 * links to it still work.
 */
export const withTabs = (text: string, first: string, last: string, further: ReadonlyArray<Section>): string => {
  const sections = sectionsOf(text)
  const [from, to] = [first, last].map((title) => sections.findIndex((section) => section.title === title)) as [
    number,
    number
  ]
  if (from < 0 || to < from) throw new Error(`no sections from "${first}" to "${last}"`)
  const tabs = [...sections.slice(from, to + 1), ...further]
  const bar = tabs.map(({ title }) => ({ id: anchorOf(title), title }))
  const slots = tabs.map((tab, index) => `<template #tab${index}>\n\n${tab.text.trim()}\n\n</template>`)
  return [
    ...sections.slice(0, from).map((section) => section.text.trim()),
    "## Clients",
    `<ClientTabs :tabs='${JSON.stringify(bar).replaceAll("'", "&#39;")}'>\n${slots.join("\n")}\n</ClientTabs>`,
    ...sections.slice(to + 1).map((section) => section.text.trim())
  ].join("\n\n")
}
