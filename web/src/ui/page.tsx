// What the calm pages share: the mark and the language switch above, one thing to do below.

import type { ComponentChildren, JSX } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { LanguageSwitch } from './language';
import { t } from './l10n';
import { Logo } from './logo';

interface PageProps {
  /** Named after the screen, for styles and tests. */
  screen: string;
  children: ComponentChildren;
}

export function Page({ screen, children }: PageProps): JSX.Element {
  return (
    <div class={`page ${screen}-page`} data-screen={screen}>
      <header class="page-top">
        <a class="brand" href="/">
          <Logo />
          <span>{t('product-name')}</span>
        </a>
        <LanguageSwitch />
      </header>
      <main>{children}</main>
    </div>
  );
}

/** A screen's heading. When the screen replaced another, it takes the focus, so that it is read out. */
export function Heading({
  focused,
  children,
}: {
  focused: boolean;
  children: ComponentChildren;
}): JSX.Element {
  const ref = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    if (focused) ref.current?.focus();
  }, [focused]);
  return (
    <h1 ref={ref} tabIndex={-1}>
      {children}
    </h1>
  );
}
