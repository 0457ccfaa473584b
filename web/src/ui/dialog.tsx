// A native modal dialog: the browser keeps the focus inside, closes it on Escape and gives the focus back.

import type { ComponentChildren, JSX } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { CloseIcon } from './icons';
import { t } from './l10n';

interface DialogProps {
  /** Also the dialog's name to screen readers. */
  title: string;
  onClose: () => void;
  children: ComponentChildren;
}

/** Open for as long as it is rendered. */
export function Dialog({ title, onClose, children }: DialogProps): JSX.Element {
  const ref = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = ref.current;
    dialog?.showModal();
    return () => dialog?.close();
  }, []);
  return (
    <dialog
      ref={ref}
      class="dialog"
      aria-label={title}
      onClose={onClose}
      onClick={(event) => {
        if (event.target === ref.current) ref.current?.close(); // The backdrop.
      }}
    >
      <div class="dialog-body">
        <header class="dialog-top">
          <h2>{title}</h2>
          <button
            type="button"
            class="icon-button"
            aria-label={t('close')}
            onClick={() => ref.current?.close()}
          >
            <CloseIcon />
          </button>
        </header>
        {children}
      </div>
    </dialog>
  );
}
