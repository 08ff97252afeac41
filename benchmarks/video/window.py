"""A window that shows what a camera sees, with the faces and looks found so far. Tk, which comes with most Pythons."""

from __future__ import annotations

import numpy as np

from registry import UserError


class LiveWindow:
    """A window; it closes when the user types q in it or closes it.

    Attributes:
        closed: the user has done so.

    Args:
        title: of the window.

    Raises:
        UserError: there is no display, or no Tk.
    """

    def __init__(self, title: str) -> None:
        try:
            import tkinter
        except ImportError:
            raise UserError("--show needs Tk, which this Python lacks (Debian: apt install python3-tk)") from None
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise UserError(f"--show needs a display, and there is none ({error}); leave --show out") from None
        self._root.title(title)
        self._label = tkinter.Label(self._root)
        self._label.pack()
        self.closed = False
        self._root.bind("<KeyPress-q>", lambda _: self._close())
        self._root.protocol("WM_DELETE_WINDOW", self._close)

    def show(self, picture: np.ndarray) -> None:
        """Shows a picture ``(H, W, 3)`` uint8, RGB, in place of the one before."""
        import tkinter

        if self.closed:
            return
        height, width = picture.shape[:2]
        data = f"P6 {width} {height} 255 ".encode() + picture.tobytes()
        self._image = tkinter.PhotoImage(master=self._root, data=data)  # Tk keeps no reference
        self._label.configure(image=self._image)
        self._root.update()

    def close(self) -> None:
        """Closes the window."""
        self._root.destroy()

    def _close(self) -> None:
        self.closed = True
