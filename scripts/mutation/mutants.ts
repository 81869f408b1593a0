/**
 * The mutants of a module: each changes one operator, condition or statement. All of them are compiled into one source, in
 * which `$mutant` selects one at run time, so that the module is loaded only once.
 */
import { readFileSync } from "node:fs"
import { basename } from "node:path"
import ts from "typescript6"

export interface Mutant {
  readonly kind: Kind
  readonly file: string
  readonly line: number
  /** The source of that line. */
  readonly code: string
  readonly was: string
  readonly is: string
  /** The whole expression or statement, and what replaces it. */
  readonly from: string
  readonly to: string
}

/** The kinds of changes. An argument is one of a call, or a property of an object that is passed or returned. */
export const kinds = ["statement", "branch", "condition", "operator", "argument", "return"] as const
export type Kind = (typeof kinds)[number]

const { SyntaxKind } = ts

const operators = new Map<ts.SyntaxKind, string>([
  [SyntaxKind.LessThanToken, "<="],
  [SyntaxKind.LessThanEqualsToken, "<"],
  [SyntaxKind.GreaterThanToken, ">="],
  [SyntaxKind.GreaterThanEqualsToken, ">"],
  [SyntaxKind.EqualsEqualsEqualsToken, "!=="],
  [SyntaxKind.ExclamationEqualsEqualsToken, "==="],
  [SyntaxKind.PlusToken, "-"],
  [SyntaxKind.MinusToken, "+"],
  [SyntaxKind.AsteriskToken, "/"],
  [SyntaxKind.SlashToken, "*"],
  [SyntaxKind.AmpersandAmpersandToken, "||"],
  [SyntaxKind.BarBarToken, "&&"],
  [SyntaxKind.PlusEqualsToken, "-="],
  [SyntaxKind.MinusEqualsToken, "+="],
  [SyntaxKind.AsteriskEqualsToken, "/="],
  [SyntaxKind.AsteriskAsteriskToken, "*"]
])

/** Operators of one operand and what replaces them: a minus and a negation are dropped. */
const unary = new Map<ts.SyntaxKind, string>([
  [SyntaxKind.ExclamationToken, ""],
  [SyntaxKind.MinusToken, ""],
  [SyntaxKind.PlusPlusToken, "--"],
  [SyntaxKind.MinusMinusToken, "++"]
])

const others = new Map([
  ["Math.min", "Math.max"],
  ["Math.max", "Math.min"]
])

/** Code outside functions runs once when its module is loaded, which tests share. */
export const isInFunction = (node: ts.Node): boolean => ts.findAncestor(node.parent, ts.isFunctionLike) !== undefined

const hasFunction = (node: ts.Node): boolean =>
  ts.isFunctionLike(node) || ts.forEachChild(node, (child) => hasFunction(child) || undefined) === true

/** A constant at the top of a module: it is tuned by measurement and not fixed by a rule. */
const isConstant = (node: ts.Node): boolean =>
  ts.isVariableStatement(node) && ts.isSourceFile(node.parent) && !hasFunction(node)

/** A literal number, whose minus is not an operator. */
const isNumber = (node: ts.Node): boolean => ts.isNumericLiteral(node) || node.getText() === "Infinity"

/** A change of a node: `whole` replaces it, and differs from it in `what`, which becomes `is`. */
export interface Change {
  readonly kind: Kind
  readonly what: ts.Node
  readonly is: string
  readonly whole: string
}

const logical = new Set(["<=", "<", ">=", ">", "!==", "===", "||", "&&"])

/** Changes of an operator or a default. */
export const operatorsOf = (node: ts.Node): Array<Change> => {
  if (ts.isBinaryExpression(node)) {
    const { left, operatorToken, right } = node
    // The default applies always, or never.
    if (operatorToken.kind === SyntaxKind.QuestionQuestionToken) {
      return [left, right].map((side) => ({
        kind: "condition",
        what: node,
        is: side.getText(),
        whole: side.getText()
      }))
    }
    const is = operators.get(operatorToken.kind)
    if (is === undefined) return []
    const whole = `${left.getText()} ${is} ${right.getText()}`
    return [{ kind: logical.has(is) ? "condition" : "operator", what: operatorToken, is, whole }]
  }
  if (ts.isPropertyAccessExpression(node)) {
    const is = others.get(node.getText())
    return is === undefined ? [] : [{ kind: "operator", what: node, is, whole: is }]
  }
  if (ts.isPrefixUnaryExpression(node) && unary.has(node.operator) && !isNumber(node.operand)) {
    const is = unary.get(node.operator)! + node.operand.getText()
    return [
      { kind: node.operator === SyntaxKind.ExclamationToken ? "condition" : "operator", what: node, is, whole: is }
    ]
  }
  if (ts.isPostfixUnaryExpression(node)) {
    const is = node.operand.getText() + unary.get(node.operator)!
    return [{ kind: "operator", what: node, is, whole: is }]
  }
  return []
}

const isDecided = (node: ts.Node): boolean => {
  if (!isInFunction(node)) return false
  const { parent } = node
  if (ts.isSourceFile(node)) return false
  return (
    ((ts.isIfStatement(parent) || ts.isWhileStatement(parent)) && parent.expression === node) ||
    (ts.isConditionalExpression(parent) && parent.condition === node)
  )
}

/** Which mutants of a module there are, and which of them its source gets. */
export interface Choice {
  readonly isSkipped: (node: ts.Node) => boolean
  readonly changesOf: (node: ts.Node) => ReadonlyArray<Change>
  /** Whether the whole node is a statement, or a property, that can be left out. */
  readonly isRemoved: (node: ts.Node) => boolean
  readonly isChosen: (number: number) => boolean
}

const ofRules: Choice = {
  isSkipped: isConstant,
  changesOf: (node) => (isInFunction(node) ? operatorsOf(node) : []),
  isRemoved: (node) => isInFunction(node) && ts.isExpressionStatement(node),
  isChosen: () => true
}

/** A change with as much around it as makes it clear. */
const shown = (node: ts.Node, to: string): Pick<Mutant, "from" | "to"> => {
  const from = node.getText()
  const { parent } = node
  if (from.length < 20 && ts.isExpression(parent) && !ts.isFunctionLike(parent)) {
    const before = node.getStart() - parent.getStart()
    const text = parent.getText()
    return shown(parent, text.slice(0, before) + to + text.slice(before + from.length))
  }
  return { from: from.replaceAll(/\s+/g, " "), to: to.replaceAll(/\s+/g, " ") }
}

/** The mutants of a module, numbered from `first`, and its source with all of them that are chosen. */
export const mutate = (
  path: string,
  first: number,
  { changesOf, isChosen, isRemoved, isSkipped }: Choice = ofRules,
  file: string = basename(path)
): { readonly mutants: Array<Mutant>; readonly text: string } => {
  const text = readFileSync(path, "utf8")
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true)
  const mutants: Array<Mutant> = []
  const lines = text.split("\n")
  /** The condition under which a mutant is active, or nothing if it is not chosen. */
  const add = (kind: Kind, what: ts.Node, is: string, whole = what, to = is): ReadonlyArray<string> => {
    const { line } = source.getLineAndCharacterOfPosition(what.getStart())
    const was = what.getText().replaceAll(/\s+/g, " ")
    const place = { file, line: line + 1, code: lines[line]!.trim() }
    const number = first - 1 + mutants.push({ kind, ...place, was, is, ...shown(whole, to) })
    return isChosen(number) ? [`$mutant(${number})`] : []
  }
  const leave = (node: ts.Node, object: ts.ObjectLiteralExpression | undefined): ReadonlyArray<string> => {
    if (object === undefined) return add("statement", node, "nothing")
    const others = object.properties.filter((each) => each !== node).map((each) => each.getText())
    return add("argument", node, "nothing", object, `{ ${others.join(", ")} }`)
  }
  const render = (node: ts.Node): string => {
    if (isSkipped(node) || ts.isTypeNode(node) || ts.isInterfaceDeclaration(node)) return node.getText()
    const alternatives = changesOf(node).flatMap(({ is, kind, what, whole }) =>
      add(kind, what, is.replaceAll(/\s+/g, " "), node, whole).map((active) => `${active} ? (${whole}) : `)
    )
    if (isDecided(node)) {
      for (const is of ["true", "false"]) {
        alternatives.push(...add("branch", node, is).map((active) => `${active} ? ${is} : `))
      }
    }
    const object = ts.isObjectLiteralElement(node) ? (node.parent as ts.ObjectLiteralExpression) : undefined
    const removed = isRemoved(node) ? leave(node, object) : []
    let at = node.getStart()
    let result = ""
    ts.forEachChild(node, (child) => {
      result += text.slice(at, child.getStart()) + render(child)
      at = child.end
    })
    result += text.slice(at, node.end)
    if (alternatives.length > 0) return `(${alternatives.join("")}(${result}))`
    if (removed.length === 0) return result
    return object !== undefined ? `...(${removed[0]} ? {} : { ${result} })` : `{ if (!${removed[0]}) { ${result} } }`
  }
  return { mutants, text: text.slice(0, source.getStart()) + render(source) }
}
